-- The tables that the other tests use. Statistics are made by ANALYZE with a fixed sample, so plans do not depend on chance.
CREATE EXTENSION indexpilot;
CREATE SCHEMA shop;
CREATE TABLE shop.customers (id int PRIMARY KEY, tenant_id int NOT NULL, email text NOT NULL, nickname text, created_at timestamptz NOT NULL);
CREATE TABLE shop.orders (id int PRIMARY KEY, tenant_id int NOT NULL, customer_id int NOT NULL, status text NOT NULL, total numeric(10,2) NOT NULL, note text, placed_at timestamptz NOT NULL);
INSERT INTO shop.customers
SELECT i, i % 50, 'user' || i || '@example.org', CASE WHEN i % 7 = 0 THEN 'nick' || i END, '2024-01-01'::timestamptz + i * interval '1 minute'
  FROM generate_series(1, 20000) i;
INSERT INTO shop.orders
SELECT i, i % 50, (i * 7919) % 20000 + 1, (ARRAY['open', 'paid', 'sent', 'closed'])[1 + i % 4], (i % 1000)::numeric / 10, repeat('x', 40), '2024-01-01'::timestamptz + i * interval '1 minute'
  FROM generate_series(1, 100000) i;
VACUUM (ANALYZE) shop.customers, shop.orders;
-- The rows above are not the workload: without this the tables would count as heavily written.
SELECT pg_stat_force_next_flush();
SELECT pg_stat_reset() IS NOT NULL AS reset;
