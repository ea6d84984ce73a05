-- Why an index, and why none: for every captured query, and for a field.
SET timezone = 'UTC';
SELECT indexpilot.capture_reset();
CREATE SCHEMA why;
CREATE TABLE why.parcels (id int PRIMARY KEY, sender int NOT NULL, kind int NOT NULL, weight int NOT NULL, label text, spare int);
INSERT INTO why.parcels SELECT i, (i * 7919) % 20000, i % 2, i % 100, repeat(md5(i::text), 2), i FROM generate_series(1, 60000) i;
CREATE TABLE why.kinds (id int, name text);
INSERT INTO why.kinds SELECT i, 'kind ' || i FROM generate_series(0, 1) i;
CREATE TABLE why.gone (a int);
VACUUM (ANALYZE) why.parcels, why.kinds;
SELECT pg_stat_force_next_flush();
SELECT pg_stat_reset() IS NOT NULL AS reset;
SELECT count(*) FROM why.parcels WHERE sender = 7;
SELECT count(*) FROM why.parcels WHERE sender = 8 AND weight = 3;
SELECT label = '' AS label FROM why.parcels WHERE id = 42;
SELECT max(p::text) IS NULL AS none FROM why.parcels p WHERE kind >= 0;
SELECT max(p::text) IS NULL AS none FROM why.parcels p;
SELECT name FROM why.kinds WHERE id = 1;
INSERT INTO why.kinds VALUES (2, 'kind 2');
PREPARE heaviest(int) AS SELECT max(weight) FROM why.parcels WHERE sender = $1;
EXECUTE heaviest(NULL);
SELECT count(*) FROM why.gone WHERE a = 1;
DROP TABLE why.gone;
-- before any analysis
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT DISTINCT reason FROM indexpilot.query_advice WHERE query ~ 'why\.';
-- a field: nothing is stored, nothing is changed
SELECT decision, reason, definition ~ 'ON why.parcels USING btree \(sender' AS on_sender, estimated_bytes > 0 AS bytes, estimated_build_ms > 0 AS build, cost_after < cost_before AS cheaper, templates, calls
  FROM indexpilot.should_create_index('why.parcels', 'sender');
SELECT decision, reason, definition, templates, calls FROM indexpilot.should_create_index('why.parcels', 'id');
BEGIN READ ONLY;
SELECT decision, reason, templates FROM indexpilot.should_create_index('why.parcels', 'kind');
ROLLBACK;
SELECT decision, reason, reason_detail, definition FROM indexpilot.should_create_index('why.parcels', 'spare');
SELECT decision, reason, templates FROM indexpilot.should_create_index('why.kinds', 'id');
SELECT count(*) AS stored FROM indexpilot.recommendations WHERE table_schema = 'why';
SELECT * FROM indexpilot.should_create_index('why.parcels', 'colour');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.should_create_index('why.parcels', NULL);
\echo :LAST_ERROR_SQLSTATE
-- every query has its reason
SELECT count(*) > 0 AS decided FROM indexpilot.analyze_and_create_indexes(dry_run => true);
SELECT reason, regexp_replace(query, '\s+', ' ', 'g') AS query, cost_after < cost_before AS cheaper, ms_before > 0 AS calibrated, cardinality(recommendation_ids) AS proposals
  FROM indexpilot.query_advice WHERE query ~ 'why\.(parcels|kinds|gone)' AND command <> 'utility' ORDER BY query COLLATE "C";
-- a parameter that was NULL says nothing of the others: the statement is planned for any value
SELECT reason, cost_before > 100 AS not_for_nothing FROM indexpilot.query_advice WHERE query ~ 'max\(weight\)' AND command = 'select';
SELECT reason_detail FROM indexpilot.query_advice WHERE query ~ 'why\.gone ' AND command = 'select';
SELECT count(*) AS without_reason FROM indexpilot.query_advice WHERE reason_detail IS NULL OR reason_detail = '';
SELECT count(*) FILTER (WHERE NOT EXISTS (SELECT FROM indexpilot.recommendations r WHERE r.id = i.id AND r.state = 'proposed')) AS dangling
  FROM indexpilot.query_advice a, unnest(a.recommendation_ids) i(id);
-- times of another plan do not count: executions of long ago were slow because they cost a thousand times as much
INSERT INTO indexpilot.workload_stats
SELECT s.workload_id, s.tenant_id, s.bucket_at - interval '1 hour', 100, 0, 0, 0, 1000000, 1e8, 10000, 10000, '{}', 100 * 1e7, 0, 0, 0, 0
  FROM indexpilot.workload_stats s JOIN indexpilot.queries q ON q.id = s.workload_id WHERE q.query ~ '^SELECT count.*WHERE sender = \$1$';
SELECT count(*) > 0 AS decided FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['why.parcels'::regclass]);
SELECT mean_ms > 5000 AS slow_on_average, ms_before < 1000 AS quick_now, ms_after < ms_before AS quicker FROM indexpilot.query_advice WHERE query ~ '^SELECT count.*WHERE sender = \$1$';
-- a decision in words, and its plans for those only who may see the statements
SELECT indexpilot.explain_decision(max(recommendation_ids[1])) AS explained FROM indexpilot.query_advice WHERE query ~ 'why\.parcels WHERE sender' \gset
SELECT regexp_replace(h, '(\d|integer|greedy).*', '') AS headings FROM regexp_split_to_table(:'explained', '\n') h WHERE h ~ '^(##|\|( of that| proven| chosen| estimated| saves| adds))';
SELECT :'explained' ~ 'Seq Scan on parcels.*after:.*hypothetical' AS plans, :'explained' ~ '\(sender = [78]\)' AS with_constants;
-- a run on another table, or for a tenant, leaves the proposals and the answers
SELECT count(*) >= 0 AS decided FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['why.kinds'::regclass]);
SELECT count(*) >= 0 AS decided FROM indexpilot.analyze_and_create_indexes(dry_run => true, tenant_id => 'nobody');
SELECT count(*) > 0 AS still_open FROM indexpilot.recommendations WHERE table_schema = 'why' AND state = 'proposed';
SELECT DISTINCT reason FROM indexpilot.query_advice WHERE query ~ 'why\.parcels WHERE sender';
-- too little room
SELECT count(*) AS proposed FROM indexpilot.analyze_and_create_indexes(dry_run => true, storage_budget => 1000) WHERE decision = 'propose';
SELECT DISTINCT reason, reason_detail ~ 'budget' AS says_so FROM indexpilot.query_advice WHERE query ~ 'why\.parcels WHERE sender';
-- a run on one table says nothing of queries on others
SELECT count(*) >= 0 AS decided FROM indexpilot.analyze_and_create_indexes(dry_run => true, tables => ARRAY['why.kinds'::regclass]);
SELECT DISTINCT reason FROM indexpilot.query_advice WHERE query ~ 'why\.parcels WHERE sender';
-- a field of a small table that is joined with a large one
SELECT count(*) FROM why.kinds k JOIN why.parcels p ON p.kind = k.id WHERE k.name = 'kind 1';
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT decision, reason, reason_detail ~ 'other tables' AS of_others, templates FROM indexpilot.should_create_index('why.kinds', 'name');
-- how planning went
SELECT name, value FROM indexpilot.get_explain_usage_stats() WHERE name ~ '^failures';
SELECT name, value > 0.5 AND value <= 1 AS most FROM indexpilot.get_explain_usage_stats() WHERE name IN ('coverage', 'success_rate', 'decision_coverage');
-- each sees the advice on what he ran
CREATE ROLE regress_indexpilot_reader;
GRANT USAGE ON SCHEMA indexpilot TO regress_indexpilot_reader;
GRANT SELECT ON indexpilot.query_advice TO regress_indexpilot_reader;
GRANT EXECUTE ON FUNCTION indexpilot.may_see(oid, text) TO regress_indexpilot_reader;
SET ROLE regress_indexpilot_reader;
SELECT count(*) AS seen FROM indexpilot.query_advice;
SELECT * FROM indexpilot.should_create_index('why.parcels', 'sender');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP OWNED BY regress_indexpilot_reader;
DROP ROLE regress_indexpilot_reader;
DROP SCHEMA why CASCADE;
