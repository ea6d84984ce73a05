-- What the planner said is remembered, and forgotten as soon as it would say something else.
CREATE SCHEMA cache;
CREATE TABLE cache.t (a int, b int);
INSERT INTO cache.t SELECT i, i % 100 FROM generate_series(1, 20000) i;
VACUUM (ANALYZE) cache.t;
CREATE FUNCTION cache.hits() RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(format('%s %s', name, value), ', ' ORDER BY name DESC) FROM indexpilot.get_explain_usage_stats() WHERE name IN ('cache_hits', 'cache_misses', 'cache_entries') $$;
CREATE FUNCTION cache.ask(index text DEFAULT 'CREATE INDEX ON cache.t (a)') RETURNS text LANGUAGE sql AS $$
  SELECT format('before %s, after %s', CASE WHEN plan_before ~ 'Seq Scan' THEN 'scan' ELSE 'index' END, CASE WHEN plan_after ~ 'Seq Scan' THEN 'scan' ELSE 'index' END)
    FROM indexpilot.what_if('SELECT * FROM cache.t WHERE a = 7', ARRAY[index]) $$;
\c
-- the first time the planner is asked, the second time not; another index is another question
SELECT cache.ask(), cache.hits();
SELECT cache.ask(), cache.hits();
SELECT cache.ask('CREATE INDEX ON cache.t (b)'), cache.hits();
SELECT cache.ask('CREATE INDEX ON cache.t (a) INCLUDE (b)'), cache.hits();
SELECT cache.ask('CREATE INDEX ON cache.t (a) WHERE b > 3'), cache.hits();
-- advice asks the same questions again and again
SELECT count(*) > 0 AS advised FROM indexpilot.advise(ARRAY['SELECT * FROM cache.t WHERE a = 8']);
SELECT value AS misses FROM indexpilot.get_explain_usage_stats() WHERE name = 'cache_misses' \gset
SELECT count(*) > 0 AS advised FROM indexpilot.advise(ARRAY['SELECT * FROM cache.t WHERE a = 8']);
SELECT value = :misses AS no_question FROM indexpilot.get_explain_usage_stats() WHERE name = 'cache_misses';
-- settings
SELECT cost_before AS cost FROM indexpilot.what_if('SELECT * FROM cache.t') \gset
SET seq_page_cost = 10;
SELECT cost_before > :cost AS dearer FROM indexpilot.what_if('SELECT * FROM cache.t');
RESET seq_page_cost;
SELECT cost_before = :cost AS as_before FROM indexpilot.what_if('SELECT * FROM cache.t');
-- an index that is made, in a transaction that is rolled back
BEGIN;
CREATE INDEX t_a ON cache.t (a);
SELECT cache.ask();
ROLLBACK;
SELECT cache.ask();
-- by another session
\setenv PGDATABASE :DBNAME
\! psql -X -q -c 'CREATE INDEX t_a ON cache.t (a)'
SELECT cache.ask();
\! psql -X -q -c 'DROP INDEX cache.t_a'
SELECT cache.ask();
-- statistics alone: ANALYZE of the same number of rows
SELECT cost_after AS cost FROM indexpilot.what_if('SELECT * FROM cache.t WHERE b = 7', ARRAY['CREATE INDEX ON cache.t (b)']) \gset
UPDATE cache.t SET b = 7 WHERE a <= 10000;
ANALYZE cache.t;
SELECT cost_after > :cost AS dearer FROM indexpilot.what_if('SELECT * FROM cache.t WHERE b = 7', ARRAY['CREATE INDEX ON cache.t (b)']);
-- functions that are evaluated while planning
CREATE FUNCTION cache.seven() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 7';
SELECT cost_before > 0 AS scans FROM indexpilot.what_if('SELECT * FROM cache.t WHERE a = 7 AND cache.seven() = 7');
CREATE OR REPLACE FUNCTION cache.seven() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 8';
SELECT cost_before > 0 AS scans FROM indexpilot.what_if('SELECT * FROM cache.t WHERE a = 7 AND cache.seven() = 7');
-- bounded in size and in time
SET indexpilot.whatif_cache_size = '4kB';
SELECT count(*) AS asked FROM generate_series(1, 50) i, LATERAL indexpilot.what_if(format('SELECT * FROM cache.t WHERE a = %s', i)) w;
SELECT name, value <= 4096 AS within FROM indexpilot.get_explain_usage_stats() WHERE name = 'cache_bytes';
SELECT name, value > 0 AS some FROM indexpilot.get_explain_usage_stats() WHERE name IN ('cache_evicted', 'cache_invalidated') ORDER BY name;
SET indexpilot.whatif_cache_ttl = 0;
SELECT value AS hits FROM indexpilot.get_explain_usage_stats() WHERE name = 'cache_hits' \gset
SELECT cache.ask();
SELECT cache.ask();
SELECT value = :hits AS none FROM indexpilot.get_explain_usage_stats() WHERE name = 'cache_hits';
DROP SCHEMA cache CASCADE;
