-- What queries want beyond columns: expressions, and the checks of foreign keys. What exists in that form is not proposed again.
CREATE SCHEMA shapes;
CREATE TABLE shapes.docs (id int PRIMARY KEY, title text NOT NULL, data jsonb NOT NULL, at timestamp NOT NULL, state text NOT NULL);
INSERT INTO shapes.docs SELECT i, 'Title ' || i, jsonb_build_object('k', 'v' || i), timestamp '2024-01-01' + i * interval '1 minute', 'closed'
  FROM generate_series(1, 30000) i;
ANALYZE shapes.docs;
SELECT definition LIKE '%((lower(title)))%' AS on_expression, reason FROM indexpilot.advise(ARRAY['SELECT * FROM shapes.docs WHERE lower(title) = ''title 7''']) WHERE decision = 'propose';
SELECT definition LIKE '%(((data ->> ''k''::text)))%' AS on_expression, reason FROM indexpilot.advise(ARRAY['SELECT * FROM shapes.docs WHERE data ->> ''k'' = ''v7''']) WHERE decision = 'propose';
SELECT definition LIKE '%((date_trunc(''hour''::text, at))%' AS on_expression, reason FROM indexpilot.advise(ARRAY['SELECT id FROM shapes.docs ORDER BY date_trunc(''hour'', at) DESC LIMIT 3']) WHERE decision = 'propose';
-- an expression that is not the same for everybody cannot be indexed
SELECT count(*) AS proposed FROM indexpilot.advise(ARRAY['SELECT * FROM shapes.docs WHERE at::timestamptz = ''2024-01-02''']) WHERE decision = 'propose';
-- an index that exists already is not proposed again, however it is spelled
CREATE INDEX docs_lower ON shapes.docs (lower(title::text));
SELECT count(*) AS proposed FROM indexpilot.advise(ARRAY['SELECT * FROM shapes.docs WHERE ''title 7'' = lower(title)']) WHERE decision = 'propose';
-- with its statistics the planner uses it as the advisor expected
ANALYZE shapes.docs;
EXPLAIN (COSTS OFF) SELECT * FROM shapes.docs WHERE lower(title) = 'title 7';
-- deletes look for rows that refer to what they delete
CREATE TABLE shapes.parents (id int PRIMARY KEY);
CREATE TABLE shapes.children (id int, parent int REFERENCES shapes.parents, note text);
INSERT INTO shapes.parents SELECT generate_series(1, 2000);
INSERT INTO shapes.children SELECT i, 1 + i % 500, repeat('x', 50) FROM generate_series(1, 30000) i;
ANALYZE shapes.parents, shapes.children;
SET indexpilot.capture_track = 'top';
DELETE FROM shapes.parents WHERE id > 1000;
SELECT pg_stat_force_next_flush();
SELECT definition ~ 'ON shapes.children USING \w+ \(parent\)' AS on_column, reason FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['shapes.children'::regclass])
 WHERE decision = 'propose';
SELECT e ~ '\| check of foreign key children_parent_fkey \|' AS named, e ~ '\| -\d+ \|' AS numbered
  FROM (SELECT indexpilot.explain_decision(max(id)) AS e FROM indexpilot.recommendations WHERE table_name = 'children' AND state = 'proposed') x;
-- and do so fast when there is an index
CREATE INDEX children_parent ON shapes.children (parent);
SELECT count(*) AS proposed FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['shapes.children'::regclass])
 WHERE decision = 'propose';
RESET indexpilot.capture_track;
-- the rows above are not the workload
SELECT pg_stat_force_next_flush();
SELECT pg_stat_reset() IS NOT NULL AS reset;
-- built at once, the expression is the one that was proposed
-- how much the table was written to depends on how fast the tests ran
SELECT pg_stat_reset_single_table_counters('shapes.docs'::regclass) IS NOT NULL AS reset;
DO $$ BEGIN FOR i IN 1..50 LOOP PERFORM FROM shapes.docs WHERE data ->> 'k' = 'v77'; END LOOP; END $$;
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT decision, definition LIKE '%(((data ->> ''k''::text)))%' AS on_expression FROM indexpilot.analyze_and_create_indexes(tables => ARRAY['shapes.docs'::regclass], storage_budget => 100000000, concurrently => false)
 WHERE decision IN ('create', 'propose');
SELECT indexdef LIKE '%((data ->> ''k''::text))%' AS on_expression FROM pg_indexes WHERE schemaname = 'shapes' AND indexname LIKE 'ip\_%';
SELECT count(*) AS found FROM shapes.docs WHERE data ->> 'k' = 'v77';
SET client_min_messages = warning;
DROP SCHEMA shapes CASCADE;
