-- A retail group with three channels: shops, orders by mail, orders on the web. 24 tables without keys. Random, and the same each time.
CREATE SCHEMA stars;
SET search_path = stars;
SELECT setseed(0.42);

CREATE FUNCTION pick(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1 + floor(random() * n)::int';
-- Small numbers are picked more often.
CREATE FUNCTION skew(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1 + floor(power(random(), 2.5) * n)::int';
CREATE FUNCTION word(list text) RETURNS text LANGUAGE sql VOLATILE AS
    'SELECT w[1 + floor(random() * cardinality(w))::int] FROM (SELECT string_to_array(list, '' '') AS w OFFSET 0) t';

CREATE TABLE day AS SELECT n AS d_day, date '1998-01-01' + n AS d_date, n / 30 AS d_month_seq, n / 7 AS d_week_seq,
    extract(year FROM date '1998-01-01' + n)::int AS d_year, extract(month FROM date '1998-01-01' + n)::int AS d_month,
    extract(day FROM date '1998-01-01' + n)::int AS d_dom, extract(quarter FROM date '1998-01-01' + n)::int AS d_quarter,
    to_char(date '1998-01-01' + n, 'FMDay')::varchar(9) AS d_weekday, (CASE WHEN n % 17 = 0 THEN 'Y' ELSE 'N' END)::char(1) AS d_holiday
    FROM generate_series(0, 7300) n;
CREATE TABLE clock AS SELECT n AS t_clock, n / 60 AS t_hour, n % 60 AS t_minute,
    (CASE WHEN n / 60 IN (6, 7, 8) THEN 'breakfast' WHEN n / 60 IN (17, 18, 19) THEN 'dinner' END)::varchar(20) AS t_meal
    FROM generate_series(0, 1439) n;
CREATE TABLE item AS SELECT n AS i_item, ('ITEM' || lpad((n / 2)::text, 12, '0'))::char(16) AS i_code,
    ('a thing of many uses, number ' || n)::varchar(100) AS i_name, round((random() * 99 + 1)::numeric, 2) AS i_price,
    round((random() * 80)::numeric, 2) AS i_cost, pick(900) AS i_brand_no, ('brand ' || pick(700))::char(50) AS i_brand,
    word('shirts pants dresses pop rock classical sports fiction history diamonds birdal estate baseball golf optics')::char(50) AS i_class,
    word('Books Music Shoes Men Women Children Sports Home Jewelry Electronics')::char(50) AS i_category,
    pick(1000) AS i_maker_no, word('small medium large extra petite economy N/A')::char(20) AS i_size,
    word('red blue green orchid plum navy slate almond peach cyan snow maroon lace khaki tan')::char(20) AS i_color,
    word('Each Dozen Case Pound Ounce Box Gross')::char(10) AS i_units, pick(100) AS i_manager
    FROM generate_series(1, 18000) n;
CREATE TABLE band AS SELECT n AS b_band, (n - 1) * 10000 AS b_low, n * 10000 AS b_high FROM generate_series(1, 20) n;
CREATE TABLE household AS SELECT n AS h_household, 1 + n % 20 AS h_band,
    word('0-500 501-1000 1001-5000 5001-10000 >10000 Unknown')::char(15) AS h_buying, n % 10 AS h_dependents, n % 6 - 1 AS h_vehicles
    FROM generate_series(1, 7200) n;
CREATE TABLE demographics AS SELECT n AS g_demo, word('M F')::char(1) AS g_sex, word('M S D W U')::char(1) AS g_marital,
    word('Primary Secondary College 2yr 4yr Advanced Unknown')::char(20) AS g_education, 500 * pick(20) AS g_purchase,
    word('Low Good High Unknown')::char(10) AS g_credit, n % 7 AS g_dependents
    FROM generate_series(1, 400000) n;
CREATE TABLE address AS SELECT n AS a_address, (pick(999) || ' Oak Street')::varchar(60) AS a_street,
    word('Midway Fairview Oakland Salem Union Concord Clifton Newtown Riverside Bethel')::varchar(60) AS a_city,
    (word('Ziebach Walker Daviess Barrow Fairfield Luce Richland Franklin Mobile Huron') || ' County ' || pick(180))::varchar(30) AS a_county,
    word('TN SD GA OH TX NY CA IL KY MI VA MN IA NE KS')::char(2) AS a_state, lpad(pick(99999)::text, 5, '0')::char(10) AS a_zip,
    'United States'::varchar(20) AS a_country, -5 - n % 4 AS a_offset, word('condo apartment single')::char(20) AS a_kind
    FROM generate_series(1, 50000) n;
CREATE TABLE customer AS SELECT n AS c_customer, ('CUST' || lpad(n::text, 12, '0'))::char(16) AS c_code, pick(400000) AS c_demo,
    pick(7200) AS c_household, pick(50000) AS c_address, pick(2000) AS c_first_day, ('first' || pick(3000))::char(20) AS c_first,
    ('last' || pick(5000))::char(30) AS c_last, word('Y N')::char(1) AS c_preferred, 1920 + pick(75) AS c_birth_year,
    pick(12) AS c_birth_month, ('COUNTRY ' || pick(200))::varchar(20) AS c_country, ('c' || n || '@example.org')::char(50) AS c_email
    FROM generate_series(1, 100000) n;
CREATE TABLE shop AS SELECT n AS o_shop, ('SHOP' || lpad((n / 2)::text, 12, '0'))::char(16) AS o_code,
    word('ought able pri ese anti cally ation eing')::varchar(50) AS o_name, 200 + pick(100) AS o_employees, 5000000 + pick(5000000) AS o_floor,
    'Ziebach County'::varchar(30) AS o_county, word('TN SD GA OH')::char(2) AS o_state, lpad(pick(99999)::text, 5, '0')::char(10) AS o_zip,
    -5 AS o_offset, pick(10) AS o_market, ('manager ' || n)::varchar(40) AS o_manager
    FROM generate_series(1, 12) n;
CREATE TABLE center AS SELECT n AS l_center, ('centre ' || n)::varchar(50) AS l_name, 'medium'::varchar(50) AS l_class,
    'Williamson County'::varchar(30) AS l_county, ('manager ' || n)::varchar(40) AS l_manager FROM generate_series(1, 6) n;
CREATE TABLE site AS SELECT n AS e_site, ('site ' || n / 2)::varchar(50) AS e_name, 'pri'::varchar(50) AS e_class,
    ('manager ' || n)::varchar(40) AS e_manager FROM generate_series(1, 30) n;
CREATE TABLE page AS SELECT n AS p_page, word('order feedback welcome protected dynamic')::char(50) AS p_kind, 1000 + pick(6000) AS p_chars
    FROM generate_series(1, 60) n;
CREATE TABLE leaflet AS SELECT n AS x_leaflet, n / 100 AS x_number, 'DEPARTMENT'::varchar(50) AS x_department FROM generate_series(1, 11718) n;
CREATE TABLE promotion AS SELECT n AS q_promotion, pick(18000) AS q_item, 1000.00 AS q_cost, word('Y N')::char(1) AS q_mail,
    word('Y N')::char(1) AS q_tv, word('Y N N N')::char(1) AS q_event FROM generate_series(1, 300) n;
CREATE TABLE warehouse AS SELECT n AS u_warehouse, ('warehouse ' || n)::varchar(20) AS u_name, 100000 * n AS u_floor,
    word('TN SD GA')::char(2) AS u_state, 'Williamson County'::varchar(30) AS u_county FROM generate_series(1, 5) n;
CREATE TABLE carrier AS SELECT n AS v_carrier, word('EXPRESS OVERNIGHT REGULAR LIBRARY TWO_DAY')::char(30) AS v_kind,
    word('AIR SURFACE SEA')::char(10) AS v_code, ('carrier ' || n)::char(20) AS v_name FROM generate_series(1, 20) n;
CREATE TABLE reason AS SELECT n AS n_reason, ('reason ' || n)::char(100) AS n_text FROM generate_series(1, 35) n;

CREATE TABLE shop_sales AS SELECT (n / 1200)::int AS s_day, 480 + pick(780) AS s_clock, skew(18000) AS s_item,
    CASE WHEN n % 23 > 0 THEN pick(100000) END AS s_customer, pick(400000) AS s_demo, pick(7200) AS s_household, pick(50000) AS s_address,
    CASE WHEN n % 29 > 0 THEN pick(12) END AS s_place, pick(300) AS s_promotion, (n / 11)::int AS s_ticket, pick(100) AS s_quantity,
    round((random() * 100)::numeric, 2) AS s_cost, round((random() * 200)::numeric, 2) AS s_list, round((random() * 200)::numeric, 2) AS s_price,
    round((random() * 3000)::numeric, 2) AS s_discount, round((random() * 15000)::numeric, 2) AS s_paid,
    round((random() * 12000 - 6000)::numeric, 2) AS s_profit
    FROM generate_series(1, 2100000) n;
CREATE TABLE mail_orders AS SELECT (n / 600)::int AS m_day, pick(1440) - 1 AS m_clock, (n / 600 + pick(90))::int AS m_ship_day, skew(18000) AS m_item,
    pick(100000) AS m_customer, pick(400000) AS m_demo, pick(7200) AS m_household, pick(50000) AS m_address,
    CASE WHEN n % 31 > 0 THEN pick(6) END AS m_place, pick(11718) AS m_leaflet, pick(20) AS m_carrier, pick(5) AS m_warehouse,
    pick(300) AS m_promotion, (n / 9)::int AS m_ticket, pick(100) AS m_quantity, round((random() * 100)::numeric, 2) AS m_cost,
    round((random() * 300)::numeric, 2) AS m_list, round((random() * 300)::numeric, 2) AS m_price, round((random() * 3000)::numeric, 2) AS m_discount,
    round((random() * 20000)::numeric, 2) AS m_paid, round((random() * 15000 - 7000)::numeric, 2) AS m_profit
    FROM generate_series(1, 1050000) n;
CREATE TABLE web_orders AS SELECT (n / 320)::int AS w_day, pick(1440) - 1 AS w_clock, (n / 320 + pick(120))::int AS w_ship_day, skew(18000) AS w_item,
    pick(100000) AS w_customer, pick(400000) AS w_demo, pick(7200) AS w_household, pick(50000) AS w_address,
    CASE WHEN n % 37 > 0 THEN pick(30) END AS w_place, pick(60) AS w_page, pick(20) AS w_carrier, pick(5) AS w_warehouse,
    pick(300) AS w_promotion, (n / 12)::int AS w_ticket, pick(100) AS w_quantity, round((random() * 100)::numeric, 2) AS w_cost,
    round((random() * 300)::numeric, 2) AS w_list, round((random() * 300)::numeric, 2) AS w_price, round((random() * 3000)::numeric, 2) AS w_discount,
    round((random() * 20000)::numeric, 2) AS w_paid, round((random() * 15000 - 7000)::numeric, 2) AS w_profit
    FROM generate_series(1, 560000) n;
CREATE TABLE shop_returns AS SELECT s_day + pick(60) AS sr_day, s_item AS sr_item, s_customer AS sr_customer, s_address AS sr_address,
    s_place AS sr_place, pick(35) AS sr_reason, s_ticket AS sr_ticket, s_demo AS sr_demo, pick(s_quantity) AS sr_quantity, round((random() * 5000)::numeric, 2) AS sr_amount,
    round((random() * 3000)::numeric, 2) AS sr_loss FROM shop_sales WHERE s_quantity % 10 = 3;
CREATE TABLE mail_returns AS SELECT m_day + pick(90) AS mr_day, m_item AS mr_item, m_customer AS mr_customer, m_address AS mr_address,
    m_place AS mr_place, pick(35) AS mr_reason, m_ticket AS mr_ticket, m_demo AS mr_demo, pick(m_quantity) AS mr_quantity, round((random() * 5000)::numeric, 2) AS mr_amount,
    round((random() * 3000)::numeric, 2) AS mr_loss FROM mail_orders WHERE m_quantity % 10 = 3;
CREATE TABLE web_returns AS SELECT w_day + pick(90) AS wr_day, w_item AS wr_item, w_customer AS wr_customer, w_address AS wr_address,
    w_place AS wr_place, pick(35) AS wr_reason, w_ticket AS wr_ticket, w_demo AS wr_demo, pick(w_quantity) AS wr_quantity, round((random() * 5000)::numeric, 2) AS wr_amount,
    round((random() * 3000)::numeric, 2) AS wr_loss FROM web_orders WHERE w_quantity % 10 = 3;
CREATE TABLE stock AS SELECT 7 * (n / 12000) AS k_day, 1 + (n::bigint * 7 % 18000)::int AS k_item, 1 + n % 5 AS k_warehouse, pick(1000) AS k_on_hand
    FROM generate_series(1, 3000000) n;
DROP FUNCTION pick(int), skew(int), word(text);
