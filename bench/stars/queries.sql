-- Thirty questions to the data of schema.sql, each asked of every channel: in place of {f} and {p} stand its table of sales and the
-- prefix of its columns, {r} and {q} the same of returns, {place}, {key}, {name} where it sells, {g} and {h} the next channel's sales,
-- {y} a year, {n} the number of the channel.

-- question: brands of a manager in one month of every year
SELECT d_year, i_brand_no, i_brand, sum({p}_price * {p}_quantity) AS total
FROM day, {f}, item
WHERE d_day = {p}_day AND {p}_item = i_item AND i_manager = 1{n} AND d_month = 11
GROUP BY d_year, i_brand_no, i_brand ORDER BY d_year, total DESC, i_brand_no LIMIT 100;

-- question: customers who gave back more than is usual where they bought
WITH returned AS (
    SELECT {q}_customer AS customer, {q}_place AS place, sum({q}_amount) AS amount
    FROM {r}, day WHERE {q}_day = d_day AND d_year = {y} GROUP BY {q}_customer, {q}_place),
usual AS (SELECT place AS at, avg(amount) AS mean FROM returned GROUP BY place)
SELECT c_code FROM returned r1, usual, {place}, customer
WHERE at = r1.place AND r1.amount > 1.2 * mean
  AND {key} = r1.place AND {name} LIKE '%1%' AND r1.customer = c_customer
ORDER BY c_code LIMIT 100;

-- question: sales of each week by day of the week, beside those of a year later
WITH weekly AS (
    SELECT d_week_seq, sum(CASE WHEN d_weekday = 'Sunday' THEN price END) AS sun, sum(CASE WHEN d_weekday = 'Friday' THEN price END) AS fri
    FROM (SELECT {p}_day AS sold, {p}_price AS price FROM {f} UNION ALL SELECT {h}_day, {h}_price FROM {g}) s, day
    WHERE d_day = sold GROUP BY d_week_seq)
SELECT a.d_week_seq, round(a.sun / b.sun, 2), round(a.fri / b.fri, 2)
FROM weekly a, weekly b, day x, day z
WHERE x.d_week_seq = a.d_week_seq AND x.d_year = {y} AND z.d_week_seq = b.d_week_seq AND z.d_year = {y} + 1
  AND a.d_week_seq = b.d_week_seq - 53
ORDER BY a.d_week_seq;

-- question: sales, returns and profit by place over two weeks, with subtotals
SELECT channel, id, sum(sales) AS sales, sum(returns) AS returns, sum(profit) AS profit
FROM (
    SELECT '{f}' AS channel, {name} AS id, sum(price) AS sales, sum(amount) AS returns, sum(profit) - sum(loss) AS profit
    FROM (SELECT {p}_place AS place, {p}_day AS at, {p}_price AS price, {p}_profit AS profit, 0.0 AS amount, 0.0 AS loss FROM {f}
          UNION ALL SELECT {q}_place, {q}_day, 0.0, 0.0, {q}_amount, {q}_loss FROM {r}) x, day, {place}
    WHERE at = d_day AND d_date BETWEEN date '{y}-08-23' AND date '{y}-08-23' + 14 AND place = {key}
    GROUP BY {name}
    UNION ALL
    SELECT '{g}', NULL, sum({h}_price), 0, sum({h}_profit) FROM {g}, day
    WHERE {h}_day = d_day AND d_date BETWEEN date '{y}-08-23' AND date '{y}-08-23' + 14) t
GROUP BY ROLLUP (channel, id) ORDER BY channel, id LIMIT 100;

-- question: states whose customers buy what is dear in its category
SELECT a_state, count(*) AS cnt FROM address, customer, {f}, day, item i,
    (SELECT i_category AS category, avg(i_price) AS mean FROM item GROUP BY i_category) usual
WHERE a_address = c_address AND c_customer = {p}_customer AND {p}_day = d_day AND {p}_item = i_item
  AND d_month_seq = (SELECT DISTINCT d_month_seq FROM day WHERE d_year = {y} AND d_month = {n} AND d_dom = 1)
  AND category = i_category AND i_price > 1.2 * mean
GROUP BY a_state HAVING count(*) >= 10 ORDER BY cnt, a_state LIMIT 100;

-- question: what a group of people buys on promotion
SELECT i_code, avg({p}_quantity), avg({p}_list), avg({p}_discount), avg({p}_price)
FROM {f}, demographics, day, item, promotion
WHERE {p}_day = d_day AND {p}_item = i_item AND {p}_demo = g_demo AND {p}_promotion = q_promotion
  AND g_sex = 'M' AND g_marital = 'S' AND g_education = 'College' AND (q_mail = 'N' OR q_event = 'N') AND d_year = {y}
GROUP BY i_code ORDER BY i_code LIMIT 100;

-- question: shoppers of one channel in some counties who also bought elsewhere
SELECT g_sex, g_marital, g_education, count(*), g_purchase, g_credit
FROM customer c, address a, demographics
WHERE c.c_address = a.a_address AND a_county IN ('Walker County 1{n}', 'Luce County 20', 'Mobile County 3{n}', 'Huron County 4')
  AND g_demo = c.c_demo
  AND EXISTS (SELECT * FROM {f}, day WHERE c.c_customer = {p}_customer AND {p}_day = d_day AND d_year = {y} AND d_month BETWEEN 1 AND 4)
  AND EXISTS (SELECT * FROM {g}, day WHERE c.c_customer = {h}_customer AND {h}_day = d_day AND d_year = {y} AND d_month BETWEEN 1 AND 4)
GROUP BY g_sex, g_marital, g_education, g_purchase, g_credit ORDER BY 1, 2, 3, 5, 6 LIMIT 100;

-- question: customers who spend faster in one channel than in another
WITH totals AS (
    SELECT c_code AS code, c_first AS first, c_last AS last, d_year AS year, sum({p}_list - {p}_discount) AS total, 'a' AS kind
    FROM customer, {f}, day WHERE c_customer = {p}_customer AND {p}_day = d_day GROUP BY c_code, c_first, c_last, d_year
    UNION ALL
    SELECT c_code, c_first, c_last, d_year, sum({h}_list - {h}_discount), 'b'
    FROM customer, {g}, day WHERE c_customer = {h}_customer AND {h}_day = d_day GROUP BY c_code, c_first, c_last, d_year)
SELECT a2.code, a2.first, a2.last FROM totals a1, totals a2, totals b1, totals b2
WHERE a2.code = a1.code AND a1.code = b1.code AND a1.code = b2.code AND a1.kind = 'a' AND b1.kind = 'b' AND a2.kind = 'a' AND b2.kind = 'b'
  AND a1.year = {y} AND a2.year = {y} + 1 AND b1.year = {y} AND b2.year = {y} + 1 AND a1.total > 0 AND b1.total > 0
  AND b2.total / b1.total > a2.total / a1.total
ORDER BY 1, 2, 3 LIMIT 100;

-- question: the share of an item in the sales of its class
SELECT i_code, i_name, i_category, i_class, i_price, sum({p}_price) AS revenue,
    sum({p}_price) * 100 / sum(sum({p}_price)) OVER (PARTITION BY i_class) AS share
FROM {f}, item, day
WHERE {p}_item = i_item AND i_category IN ('Sports', 'Books', 'Home') AND {p}_day = d_day
  AND d_date BETWEEN date '{y}-02-22' AND date '{y}-02-22' + 30
GROUP BY i_code, i_name, i_category, i_class, i_price ORDER BY i_category, i_class, i_code, i_name, share;

-- question: averages where one of several groups of people and of prices meet
SELECT avg({p}_quantity), avg({p}_list), avg({p}_cost), sum({p}_cost)
FROM {f}, {place}, demographics, household, address, day
WHERE {key} = {p}_place AND {p}_day = d_day AND d_year = {y} AND {p}_household = h_household AND g_demo = {p}_demo AND {p}_address = a_address
  AND ((g_marital = 'M' AND g_education = 'Advanced' AND {p}_price BETWEEN 100 AND 150 AND h_dependents = 3)
    OR (g_marital = 'S' AND g_education = 'College' AND {p}_price BETWEEN 50 AND 100 AND h_dependents = 1))
  AND ((a_state IN ('TX', 'OH', 'TN') AND {p}_profit BETWEEN 100 AND 200) OR (a_state IN ('KY', 'GA') AND {p}_profit BETWEEN 150 AND 300));

-- question: kinds of items that sold in both channels, with subtotals
WITH both_sold AS (
    SELECT i_item AS id FROM item, (
        SELECT i_brand_no AS brand, i_class AS class, i_category AS category FROM {f}, item, day
        WHERE {p}_item = i_item AND {p}_day = d_day AND d_year BETWEEN {y} AND {y} + 2
        INTERSECT
        SELECT i_brand_no, i_class, i_category FROM {g}, item, day WHERE {h}_item = i_item AND {h}_day = d_day AND d_year BETWEEN {y} AND {y} + 2) x
    WHERE i_brand_no = brand AND i_class = class AND i_category = category)
SELECT i_brand_no, i_class, i_category, sum({p}_quantity * {p}_list) AS sales, count(*)
FROM {f}, item, day
WHERE {p}_item IN (SELECT id FROM both_sold) AND {p}_item = i_item AND {p}_day = d_day AND d_year = {y} + 2 AND d_month = 11
GROUP BY ROLLUP (i_brand_no, i_class, i_category) ORDER BY 1, 2, 3 LIMIT 100;

-- question: sales by postal code of large customers or in some places
SELECT a_zip, sum({p}_price) FROM {f}, customer, address, day
WHERE {p}_customer = c_customer AND c_address = a_address
  AND (substr(a_zip, 1, 5) IN ('85669', '86197', '88274') OR a_state IN ('CA', 'GA') OR {p}_price > 199)
  AND {p}_day = d_day AND d_quarter = 2 AND d_year = {y}
GROUP BY a_zip ORDER BY a_zip LIMIT 100;

-- question: orders with more than one item that nothing came back of
SELECT count(DISTINCT {p}_ticket) AS orders, sum({p}_paid) AS paid, sum({p}_profit) AS profit
FROM {f} f1, day, address, {place}
WHERE d_date BETWEEN date '{y}-02-01' AND date '{y}-02-01' + 60 AND f1.{p}_day = d_day AND f1.{p}_address = a_address AND a_state = 'GA'
  AND f1.{p}_place = {key}
  AND EXISTS (SELECT * FROM {f} f2 WHERE f1.{p}_ticket = f2.{p}_ticket AND f1.{p}_item <> f2.{p}_item)
  AND NOT EXISTS (SELECT * FROM {r} WHERE f1.{p}_ticket = {q}_ticket);

-- question: what was bought, given back, and bought again elsewhere
SELECT i_code, i_name, {name}, count({p}_quantity), avg({p}_quantity), stddev_samp({p}_quantity), avg({q}_quantity), avg({h}_quantity)
FROM {f}, {r}, {g}, day d1, day d2, day d3, {place}, item
WHERE d1.d_quarter = 1 AND d1.d_year = {y} AND d1.d_day = {p}_day AND i_item = {p}_item AND {key} = {p}_place
  AND {p}_customer = {q}_customer AND {p}_item = {q}_item AND {p}_ticket = {q}_ticket AND {q}_day = d2.d_day
  AND d2.d_quarter IN (1, 2, 3) AND d2.d_year = {y} AND {q}_customer = {h}_customer AND {q}_item = {h}_item AND {h}_day = d3.d_day
  AND d3.d_year = {y}
GROUP BY i_code, i_name, {name} ORDER BY i_code, i_name, {name} LIMIT 100;

-- question: averages of what some people bought, by place of living with subtotals
SELECT i_code, a_country, a_state, a_county, avg({p}_quantity), avg({p}_list), avg({p}_price), avg(c_birth_year), avg(g1.g_dependents)
FROM {f}, demographics g1, demographics g2, customer, address, day, item
WHERE {p}_day = d_day AND {p}_item = i_item AND {p}_demo = g1.g_demo AND {p}_customer = c_customer AND g1.g_sex = 'F'
  AND g1.g_education = 'Unknown' AND c_demo = g2.g_demo AND c_address = a_address AND c_birth_month IN (1, 6, 8, 9, 12, 2)
  AND d_year = {y} AND a_state IN ('MI', 'VA', 'TX')
GROUP BY ROLLUP (i_code, a_country, a_state, a_county) ORDER BY 2, 3, 4, 1 LIMIT 100;

-- question: what lay in the warehouses before and after a day
SELECT u_name, i_code, sum(CASE WHEN d_date < date '{y}-03-11' THEN k_on_hand ELSE 0 END) AS before,
    sum(CASE WHEN d_date >= date '{y}-03-11' THEN k_on_hand ELSE 0 END) AS after
FROM stock, warehouse, item, day
WHERE i_price BETWEEN 10.{n} AND 11.{n} AND i_item = k_item AND k_warehouse = u_warehouse AND k_day = d_day
  AND d_date BETWEEN date '{y}-03-11' - 30 AND date '{y}-03-11' + 30
GROUP BY u_name, i_code ORDER BY u_name, i_code LIMIT 100;

-- question: items whose stock varies from month to month, in a channel's range
WITH varying AS (
    SELECT u_warehouse, i_item, d_month, stddev_samp(k_on_hand) AS deviation, avg(k_on_hand) AS mean
    FROM stock, item, warehouse, day
    WHERE k_item = i_item AND k_warehouse = u_warehouse AND k_day = d_day AND d_year = {y}
      AND EXISTS (SELECT * FROM {f} WHERE {p}_item = i_item AND {p}_quantity > 98)
    GROUP BY u_warehouse, i_item, d_month)
SELECT a.u_warehouse, a.i_item, a.d_month, a.mean, b.d_month, b.mean FROM varying a, varying b
WHERE a.i_item = b.i_item AND a.u_warehouse = b.u_warehouse AND a.d_month = {n} AND b.d_month = {n} + 1 AND a.deviation / a.mean > 0.5
ORDER BY 1, 2, 3;

-- question: sales of the best customers in what sells often
WITH often AS (
    SELECT i_item AS item, d_date, count(*) AS cnt FROM {f}, day, item
    WHERE {p}_day = d_day AND {p}_item = i_item AND d_year IN ({y}, {y} + 1) GROUP BY i_item, d_date HAVING count(*) > 4),
best AS (
    SELECT c_customer AS customer, sum({p}_quantity * {p}_price) AS spent FROM {f}, customer WHERE {p}_customer = c_customer
    GROUP BY c_customer HAVING sum({p}_quantity * {p}_price) > 0.5 * (
        SELECT max(total) FROM (SELECT sum({p}_quantity * {p}_price) AS total FROM {f}, day WHERE {p}_day = d_day AND d_year = {y} GROUP BY {p}_customer) m))
SELECT sum({h}_quantity * {h}_list) FROM {g}, day
WHERE d_year = {y} AND d_month = 2 AND {h}_day = d_day AND {h}_item IN (SELECT item FROM often) AND {h}_customer IN (SELECT customer FROM best);

-- question: what customers paid for things of a colour that came back
SELECT c_last, c_first, {name}, i_color, sum({p}_paid) AS paid
FROM {f}, {r}, {place}, item, customer, address
WHERE {p}_ticket = {q}_ticket AND {p}_item = {q}_item AND {p}_customer = c_customer AND {p}_item = i_item AND {p}_place = {key}
  AND c_address = a_address AND i_color = 'peach' AND a_state = 'K' || 'Y' AND c_birth_month = {n}
GROUP BY c_last, c_first, {name}, i_color ORDER BY paid LIMIT 100;

-- question: list prices by range of quantity, each in a query of its own
SELECT * FROM
    (SELECT avg({p}_list) AS a1, count({p}_list) AS b1, count(DISTINCT {p}_list) AS c1 FROM {f}
      WHERE {p}_quantity BETWEEN 0 AND 5 AND ({p}_list BETWEEN 18 AND 28 OR {p}_discount BETWEEN 939 AND 999 OR {p}_cost BETWEEN 37 AND 38)) x,
    (SELECT avg({p}_list) AS a2, count({p}_list) AS b2, count(DISTINCT {p}_list) AS c2 FROM {f}
      WHERE {p}_quantity BETWEEN 6 AND 10 AND {p}_list BETWEEN 11 AND 12) y,
    (SELECT avg({p}_list) AS a3, count({p}_list) AS b3, count(DISTINCT {p}_list) AS c3 FROM {f}
      WHERE {p}_quantity = 5{n} AND {p}_price < 5) z;

-- question: counties where one channel grows faster than another
WITH one AS (
    SELECT a_county, d_quarter, d_year, sum({p}_price) AS sales FROM {f}, day, address
    WHERE {p}_day = d_day AND {p}_address = a_address GROUP BY a_county, d_quarter, d_year),
two AS (
    SELECT a_county, d_quarter, d_year, sum({h}_price) AS sales FROM {g}, day, address
    WHERE {h}_day = d_day AND {h}_address = a_address GROUP BY a_county, d_quarter, d_year)
SELECT o1.a_county, o1.d_year, t2.sales / t1.sales AS growth_two, o2.sales / o1.sales AS growth_one
FROM one o1, one o2, two t1, two t2
WHERE o1.d_quarter = 1 AND o1.d_year = {y} AND o1.a_county = o2.a_county AND o2.d_quarter = 2 AND o2.d_year = {y} AND o1.a_county = t1.a_county
  AND t1.d_quarter = 1 AND t1.d_year = {y} AND t1.a_county = t2.a_county AND t2.d_quarter = 2 AND t2.d_year = {y}
  AND t2.sales / t1.sales > o2.sales / o1.sales
ORDER BY o1.d_year, o1.a_county;

-- question: discounts beyond what is usual for the item
SELECT sum({p}_discount) FROM {f}, item, day
WHERE i_maker_no = 97{n} AND i_item = {p}_item AND d_date BETWEEN date '{y}-01-27' AND date '{y}-01-27' + 90 AND d_day = {p}_day
  AND {p}_discount > (SELECT 1.3 * avg({p}_discount) FROM {f}, day
      WHERE {p}_item = i_item AND d_date BETWEEN date '{y}-01-27' AND date '{y}-01-27' + 90 AND d_day = {p}_day);

-- question: customers with a middling number of things on one ticket
SELECT c_last, c_first, c_preferred, ticket, cnt
FROM (SELECT {p}_ticket AS ticket, {p}_customer AS customer, count(*) AS cnt FROM {f}, day, household, {place}
      WHERE {p}_day = d_day AND {p}_place = {key} AND {p}_household = h_household AND d_dom BETWEEN 1 AND 3
        AND (h_buying = '>10000' OR h_buying = 'Unknown') AND h_vehicles > 0 AND d_year IN ({y}, {y} + 1)
      GROUP BY {p}_ticket, {p}_customer) dn, customer
WHERE customer = c_customer AND cnt BETWEEN 5 AND 10 ORDER BY c_last, c_first, c_preferred DESC, ticket;

-- question: margins by category and class with subtotals, ranked among their like
SELECT sum({p}_profit) / sum({p}_price) AS margin, i_category, i_class, grouping(i_category) + grouping(i_class) AS level,
    rank() OVER (PARTITION BY grouping(i_category) + grouping(i_class), CASE WHEN grouping(i_class) = 0 THEN i_category END
        ORDER BY sum({p}_profit) / sum({p}_price)) AS place
FROM {f}, day, item, {place}
WHERE d_year = {y} AND d_day = {p}_day AND i_item = {p}_item AND {key} = {p}_place
GROUP BY ROLLUP (i_category, i_class) ORDER BY level DESC, CASE WHEN grouping(i_category) + grouping(i_class) = 0 THEN i_category END, place LIMIT 100;

-- question: customers of one channel on a day who did not buy in another
SELECT count(*) FROM (
    SELECT DISTINCT c_last, c_first, d_date FROM {f}, day, customer
    WHERE {p}_day = d_day AND {p}_customer = c_customer AND d_month_seq BETWEEN 2{n} AND 2{n} + 11
    EXCEPT
    SELECT DISTINCT c_last, c_first, d_date FROM {g}, day, customer
    WHERE {h}_day = d_day AND {h}_customer = c_customer AND d_month_seq BETWEEN 2{n} AND 2{n} + 11) cool;

-- question: months that differ from the mean of their year, with the months around them
WITH monthly AS (
    SELECT i_category, i_brand, {name} AS place, d_year, d_month, sum({p}_price) AS total,
        avg(sum({p}_price)) OVER (PARTITION BY i_category, i_brand, {name}, d_year) AS mean,
        rank() OVER (PARTITION BY i_category, i_brand, {name} ORDER BY d_year, d_month) AS rn
    FROM item, {f}, day, {place}
    WHERE {p}_item = i_item AND {p}_day = d_day AND {p}_place = {key}
      AND (d_year = {y} OR (d_year = {y} - 1 AND d_month = 12) OR (d_year = {y} + 1 AND d_month = 1))
    GROUP BY i_category, i_brand, {name}, d_year, d_month)
SELECT v1.i_category, v1.d_year, v1.d_month, v1.mean, v1.total, v2.total AS psum, v3.total AS nsum
FROM monthly v1, monthly v2, monthly v3
WHERE v1.i_category = v2.i_category AND v1.i_brand = v2.i_brand AND v1.place = v2.place AND v1.i_category = v3.i_category
  AND v1.i_brand = v3.i_brand AND v1.place = v3.place AND v1.rn = v2.rn + 1 AND v1.rn = v3.rn - 1 AND v1.d_year = {y} AND v1.mean > 0
  AND abs(v1.total - v1.mean) / v1.mean > 0.1
ORDER BY v1.total - v1.mean, 3 LIMIT 100;

-- question: how many days lie between sale and return
SELECT {name}, sum(CASE WHEN {q}_day - {p}_day <= 30 THEN 1 ELSE 0 END) AS d30,
    sum(CASE WHEN {q}_day - {p}_day > 30 AND {q}_day - {p}_day <= 60 THEN 1 ELSE 0 END) AS d60,
    sum(CASE WHEN {q}_day - {p}_day > 60 THEN 1 ELSE 0 END) AS more
FROM {f}, {r}, {place}, day
WHERE d_year = {y} AND d_month = 8 AND {p}_ticket = {q}_ticket AND {p}_item = {q}_item AND {q}_day = d_day AND {p}_customer = {q}_customer
  AND {p}_place = {key}
GROUP BY {name} ORDER BY {name} LIMIT 100;

-- question: running sums of two channels, where one is ahead
WITH one AS (
    SELECT {p}_item AS item, d_date, sum(sum({p}_price)) OVER (PARTITION BY {p}_item ORDER BY d_date) AS cume
    FROM {f}, day WHERE {p}_day = d_day AND d_month_seq BETWEEN 1{n} AND 1{n} + 11 GROUP BY {p}_item, d_date),
two AS (
    SELECT {h}_item AS item, d_date, sum(sum({h}_price)) OVER (PARTITION BY {h}_item ORDER BY d_date) AS cume
    FROM {g}, day WHERE {h}_day = d_day AND d_month_seq BETWEEN 1{n} AND 1{n} + 11 GROUP BY {h}_item, d_date)
SELECT * FROM (
    SELECT item, d_date, max(one.cume) OVER w AS o, max(two.cume) OVER w AS t FROM one FULL JOIN two USING (item, d_date)
    WINDOW w AS (PARTITION BY item ORDER BY d_date ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) x
WHERE o > t ORDER BY item, d_date LIMIT 100;

-- question: how many buy in some hours
SELECT count(*) FROM {f}, household, clock, {place}
WHERE {p}_clock = t_clock AND {p}_household = h_household AND {p}_place = {key} AND t_hour = 1{n} AND t_minute >= 30 AND h_dependents = 7
  AND {name} LIKE '%e%';

-- question: what a customer really paid, less what came back for a reason
SELECT customer, sum(amount) AS total
FROM (SELECT {p}_customer AS customer, CASE WHEN {q}_quantity IS NOT NULL THEN ({p}_quantity - {q}_quantity) * {p}_price ELSE {p}_quantity * {p}_price END AS amount
      FROM {f} LEFT JOIN {r} ON {q}_item = {p}_item AND {q}_ticket = {p}_ticket, reason
      WHERE {q}_reason = n_reason AND n_text = 'reason 2{n}') t
GROUP BY customer ORDER BY total, customer LIMIT 100;
