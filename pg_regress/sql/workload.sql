-- The workload as users see it: views, questions, reports of applications, documents of standbys, and who sees what.
SET timezone = 'UTC';
SELECT indexpilot.capture_reset();
CREATE ROLE regress_indexpilot_a;
CREATE ROLE regress_indexpilot_b;
CREATE ROLE regress_indexpilot_monitor;
GRANT pg_monitor TO regress_indexpilot_monitor;
GRANT USAGE ON SCHEMA shop, indexpilot TO regress_indexpilot_a, regress_indexpilot_b;
GRANT SELECT ON shop.orders, shop.customers TO regress_indexpilot_a, regress_indexpilot_b;
GRANT SELECT ON indexpilot.queries, indexpilot.query_stats, indexpilot.workload_samples TO regress_indexpilot_a, regress_indexpilot_b;
GRANT EXECUTE ON FUNCTION indexpilot.may_see(oid, text), indexpilot.histogram_percentile(bigint[], float8), indexpilot.histogram_add(bigint[], bigint[]),
  indexpilot.histogram_sum(bigint[]), indexpilot.get_query_stats(interval, text, regclass, integer), indexpilot.export_workload(interval),
  indexpilot.log_query_stat(text, float8, bigint, text, bigint) TO regress_indexpilot_a, regress_indexpilot_b;

-- percentiles
SELECT indexpilot.histogram_add('{1,2}', '{1,2,3}') AS added, indexpilot.histogram_add(NULL, '{1}') AS one, indexpilot.histogram_add(NULL, NULL) IS NULL AS none;
SELECT indexpilot.histogram_sum(h) AS sum FROM (VALUES ('{1,2}'::bigint[]), (NULL), ('{0,5,1}')) AS v(h);
SELECT indexpilot.histogram_percentile('{0,0}', 0.5) AS nothing, round(indexpilot.histogram_percentile(('{' || repeat('0,', 39) || '9,0,0,0,1}')::bigint[], 0.5)::numeric, 3) AS p50,
  round(indexpilot.histogram_percentile(('{' || repeat('0,', 39) || '9,0,0,0,1}')::bigint[], 0.99)::numeric, 3) AS p99;

-- two roles, and two tenants of one of them
SET ROLE regress_indexpilot_a;
SELECT count(*) AS a FROM shop.orders WHERE note = 'a secret of a';
RESET ROLE;
SET indexpilot.tenant_id = 't1';
SET ROLE regress_indexpilot_b;
SELECT count(*) AS b FROM shop.customers WHERE nickname = 'a secret of b for t1';
RESET ROLE;
SET indexpilot.tenant_id = 't2';
SET ROLE regress_indexpilot_b;
SELECT count(*) AS b FROM shop.customers WHERE nickname = 'a secret of b for t2';
RESET ROLE;
RESET indexpilot.tenant_id;
SELECT indexpilot.capture_flush() > 0 AS flushed;

SELECT role_name, nested, query, command, tables, calls, errors, rows, p50_ms > 0 AND p95_ms >= p50_ms AND p99_ms >= p95_ms AS percentiles, min_ms <= max_ms AS times
  FROM indexpilot.queries WHERE role_name ~ '^regress_indexpilot' ORDER BY role_name;
SELECT role_name, tenant_id, tables, calls, mean_ms > 0 AS mean, stddev_ms = 0 AS stddev, mean_cost > 0 AS cost, (SELECT sum(n) FROM unnest(histogram) n) = calls AS histogram
  FROM indexpilot.query_stats WHERE role_name ~ '^regress_indexpilot' ORDER BY role_name, tenant_id;
SELECT q.role_name, s.tenant_id, s.query FROM indexpilot.workload_samples s JOIN indexpilot.queries q ON q.id = s.workload_id
 WHERE q.role_name ~ '^regress_indexpilot' ORDER BY q.role_name, s.tenant_id;
SELECT role_name, query, calls FROM indexpilot.get_query_stats(table_name => 'shop.customers') WHERE role_name ~ '^regress_indexpilot' ORDER BY role_name;
SELECT role_name, calls FROM indexpilot.get_query_stats(since => NULL, tenant_id => 't2');
SELECT count(*) AS row FROM indexpilot.get_query_stats(max_rows => 1);
-- what ran just now is in a span that began before
SELECT count(*) AS row FROM indexpilot.get_query_stats(since => '1 millisecond', max_rows => 1);
SELECT jsonb_array_length(indexpilot.export_workload(since => '1 millisecond')->'templates') > 0 AS exported;

-- each sees its own, whatever it asks, and through conditions of its own making too
CREATE FUNCTION shop.peek(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$;
SET ROLE regress_indexpilot_a;
SELECT role_name, calls FROM indexpilot.queries WHERE role_name ~ '^regress_indexpilot';
SELECT DISTINCT role_name FROM indexpilot.query_stats;
SELECT query FROM indexpilot.workload_samples WHERE shop.peek(query) ORDER BY 1;
SELECT DISTINCT role_name FROM indexpilot.get_query_stats(since => NULL);
SELECT t->>'query' AS query, s->>'query' AS sample FROM jsonb_array_elements(indexpilot.export_workload()->'templates') t, jsonb_array_elements(t->'samples') s
 WHERE s->>'query' ~ 'secret of' ORDER BY 1, 2;
SELECT * FROM indexpilot.workload;
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.workload_sample;
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.workload_stats;
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM indexpilot.reported_stats;
\echo :LAST_ERROR_SQLSTATE
SET indexpilot.tenant_id = 't1';
\echo :LAST_ERROR_SQLSTATE
SET indexpilot.capture_literals = off;
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.import_workload('{}');
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.import_pg_stat_statements();
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
-- a tenant sees nothing of another, and cannot become it
SET indexpilot.tenant_id = 't1';
SET ROLE regress_indexpilot_b;
SELECT role_name, tables, calls FROM indexpilot.queries;
SELECT tenant_id, calls FROM indexpilot.query_stats WHERE NOT nested;
SELECT tenant_id, query FROM indexpilot.workload_samples;
SELECT count(*) AS others FROM indexpilot.get_query_stats(since => NULL, tenant_id => 't2');
SELECT DISTINCT s->>'tenant_id' AS tenant FROM jsonb_array_elements(indexpilot.export_workload()->'templates') t, jsonb_array_elements(t->'stats') s;
SELECT indexpilot.log_query_stat('SELECT 1', 1, tenant_id => 't2');
\echo :LAST_ERROR_SQLSTATE
SET indexpilot.tenant_id = 't2';
\echo :LAST_ERROR_SQLSTATE
RESET indexpilot.tenant_id;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
RESET indexpilot.tenant_id;
SET ROLE regress_indexpilot_monitor;
SELECT DISTINCT role_name FROM indexpilot.queries WHERE role_name ~ '^regress_indexpilot' ORDER BY 1;
RESET ROLE;

-- an application reports itself: to the template that capture made, whatever the constants
SET ROLE regress_indexpilot_a;
SELECT indexpilot.log_query_stat('SELECT count(*) AS a FROM shop.orders WHERE note = ''another''', 12.5, 3);
SELECT indexpilot.log_query_stat('SELECT count(*) AS a FROM shop.orders WHERE note = ''a third'';', 7.5, 1, 'acme', 9);
-- first reported, then run: one template too
SELECT indexpilot.log_query_stat('SELECT id FROM shop.orders WHERE status = ''gone''', 1);
SELECT id FROM shop.orders WHERE status = 'nowhere';
RESET ROLE;
SELECT name, value FROM indexpilot.status WHERE name = 'reports_waiting';
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT name, value FROM indexpilot.status WHERE name = 'reports_waiting';
SELECT query, calls, rows FROM indexpilot.queries WHERE role_name = 'regress_indexpilot_a' AND tables = ARRAY['shop.orders'::regclass] AND NOT nested ORDER BY query COLLATE "C";
SELECT tenant_id, calls, total_ms, round(p50_ms::numeric, 1) AS p50 FROM indexpilot.query_stats WHERE role_name = 'regress_indexpilot_a' AND tenant_id <> '';

-- a standby sends what it ran: here the same document, as if it came from one
SELECT set_config('regress.document', (indexpilot.export_workload(since => '1 hour') || '{"id": "6f1c2a34-0000-4000-8000-0123456789ab"}')::text, false) IS NOT NULL AS exported;
SELECT doc->>'format' AS format, doc->>'version' AS version, doc->'literals' AS literals, doc->'source'->'standby' AS standby FROM (SELECT current_setting('regress.document')::jsonb AS doc) d;
SELECT sum(calls) AS calls FROM indexpilot.queries WHERE role_name ~ '^regress_indexpilot' \gset before_
SELECT indexpilot.import_workload(current_setting('regress.document')::jsonb);
\echo :LAST_ERROR_SQLSTATE
SELECT set_config('regress.document', jsonb_set(current_setting('regress.document')::jsonb, '{source,standby}', 'true')::text, false) IS NOT NULL AS exported;
SELECT indexpilot.import_workload(current_setting('regress.document')::jsonb) > 0 AS counted;
SELECT indexpilot.import_workload(current_setting('regress.document')::jsonb) AS again;
SELECT sum(calls) = 2 * :before_calls AS doubled FROM indexpilot.queries WHERE role_name ~ '^regress_indexpilot';
SELECT document_id, templates > 0 AS templates, calls > 0 AS calls FROM indexpilot.workload_imports;
-- what is no such document changes nothing
SELECT indexpilot.import_workload('[]');
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.import_workload(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.import_workload('{"format": "indexpilot workload", "version": 99}');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
SELECT indexpilot.import_workload(jsonb_set(current_setting('regress.document')::jsonb, '{source,system_identifier}', '"1"'));
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.import_workload(jsonb_set(current_setting('regress.document')::jsonb, '{source,database_id}', '1'));
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.import_workload(jsonb_set(current_setting('regress.document')::jsonb, '{templates,0,stats,0,calls}', '-1') || '{"id": "6f1c2a34-0000-4000-8000-0123456789ac"}');
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.import_workload(jsonb_set(current_setting('regress.document')::jsonb, '{templates,0,stats,0,total_ms}', '-1') || '{"id": "6f1c2a34-0000-4000-8000-0123456789ac"}');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY default
SELECT count(*) AS documents FROM indexpilot.workload_imports;
-- constants leave only when they may be kept
SET indexpilot.capture_literals = off;
SELECT indexpilot.export_workload()::text ~ 'secret' AS literals, indexpilot.export_workload()->'literals' AS said;
RESET indexpilot.capture_literals;

-- more tenants than are counted apart
SELECT indexpilot.import_workload(jsonb_set(doc, '{templates}', jsonb_build_array(jsonb_set(doc->'templates'->0, '{stats}',
         (SELECT jsonb_agg(doc->'templates'->0->'stats'->0 || jsonb_build_object('tenant_id', 'many' || i, 'total_ms', 1000 + i, 'calls', 1, 'at', extract(epoch FROM now()))) FROM generate_series(1, 30) i))))
       || '{"id": "6f1c2a34-0000-4000-8000-0123456789ad"}')
  FROM (SELECT current_setting('regress.document')::jsonb AS doc) d;
SELECT count(*) BETWEEN 10 AND 20 AS tenants, bool_and(tenant_id > 'many1') AS heaviest, bool_or(tenant_id = 'many30') AS first FROM indexpilot.query_stats WHERE tenant_id LIKE 'many%';
-- samples of one template: no more than twelve, of all tenants
SELECT indexpilot.import_workload(jsonb_set(doc, '{templates}', jsonb_build_array(jsonb_set(doc->'templates'->0, '{samples}',
         (SELECT jsonb_agg(jsonb_build_object('tenant_id', 't' || i % 3, 'query', 'SELECT ' || i, 'search_path', '')) FROM generate_series(1, 90) i))))
       || '{"id": "6f1c2a34-0000-4000-8000-0123456789ae"}')
  FROM (SELECT current_setting('regress.document')::jsonb AS doc) d;
SELECT count(*) AS samples, count(DISTINCT tenant_id) >= 3 AS tenants FROM indexpilot.workload_samples s WHERE workload_id = (SELECT workload_id FROM indexpilot.workload_samples WHERE tenant_id = 't0' LIMIT 1);

-- whoever imports without being a superuser: everything counts, but no statement is kept that would be planned as a role that he is not
GRANT EXECUTE ON FUNCTION indexpilot.import_workload(jsonb) TO regress_indexpilot_b;
SELECT set_config('regress.template', jsonb_set('{"relations_hash": 0, "command": "select", "stats": [{"at": 1, "calls": 1, "errors": 0, "error_ms": 0, "rows": 0, "total_ms": 1, "sum_squares_ms": 1, "min_ms": 1, "max_ms": 1, "histogram": [], "planner_cost": 0, "shared_blocks_hit": 0, "shared_blocks_read": 0, "temp_blocks": 0, "wal_bytes": 0}], "samples": [{"query": "SELECT of another", "search_path": ""}]}', '{stats,0,at}', to_jsonb(extract(epoch FROM now() - interval '2 days')))::text, false) IS NOT NULL AS made;
SELECT set_config('regress.roles', jsonb_agg(current_setting('regress.template')::jsonb || jsonb_build_object('queryid', 900 + i, 'role_id', r::regrole::oid::bigint))::text, false) IS NOT NULL AS made
  FROM (VALUES (1, current_user), (2, 'regress_indexpilot_a'), (3, 'regress_indexpilot_b')) AS v(i, r);
SET ROLE regress_indexpilot_b;
SELECT indexpilot.import_workload(current_setting('regress.document')::jsonb || jsonb_build_object('templates', current_setting('regress.roles')::jsonb, 'id', '6f1c2a34-0000-4000-8000-0123456789af'));
RESET ROLE;
SELECT q.queryid, q.calls, q.last_seen_at < now() - interval '1 day' AS old, count(s.id) AS samples
  FROM indexpilot.queries q LEFT JOIN indexpilot.workload_samples s ON s.workload_id = q.id WHERE q.queryid BETWEEN 901 AND 903 GROUP BY 1, 2, 3 ORDER BY 1;
-- a clock that is ahead, and a span that is the same in every time zone
SET timezone = '<odd>-05:07';
SELECT indexpilot.import_workload(current_setting('regress.document')::jsonb || jsonb_build_object('id', '6f1c2a34-0000-4000-8000-0123456789b0', 'templates', jsonb_build_array(
         jsonb_set(current_setting('regress.template')::jsonb, '{stats,0,at}', '32000000000') || '{"queryid": 904, "role_id": 10}',
         jsonb_set(current_setting('regress.template')::jsonb, '{stats,0,at}', to_jsonb(floor(extract(epoch FROM now()) / 3600) * 3600 - 172800 + 1801)) || '{"queryid": 905, "role_id": 10}')));
SET timezone = 'UTC';
SELECT queryid, first_seen_at <= now() AND last_seen_at <= now() AS past FROM indexpilot.queries WHERE queryid IN (904, 905) ORDER BY queryid;
SELECT extract(minute FROM bucket_at) AS minute, extract(second FROM bucket_at) = 0 AS whole FROM indexpilot.query_stats WHERE queryid = 905;
-- an old span counts up to its end, which is an hour later at most
SELECT min(calls) FILTER (WHERE s = '1 day') AS day, min(calls) FILTER (WHERE s = '3 days') AS days
  FROM unnest('{1 day,3 days}'::interval[]) s, indexpilot.get_query_stats(since => s, max_rows => 1000) WHERE queryid = 905;
-- figures beyond what a bigint holds stay at its largest, and no flush fails
SELECT indexpilot.import_workload(current_setting('regress.document')::jsonb || jsonb_build_object('id', '6f1c2a34-0000-4000-8000-0123456789b1', 'templates', jsonb_build_array(
         jsonb_set(current_setting('regress.template')::jsonb, '{stats}', (SELECT jsonb_agg(current_setting('regress.template')::jsonb->'stats'->0 || '{"rows": 1000000000000000, "wal_bytes": 1000000000000000}')
           FROM generate_series(1, 9500))) || '{"queryid": 906, "role_id": 10}')));
SELECT indexpilot.import_workload(current_setting('regress.document')::jsonb || jsonb_build_object('id', '6f1c2a34-0000-4000-8000-0123456789b2', 'templates', jsonb_build_array(
         jsonb_set(current_setting('regress.template')::jsonb, '{stats}', (SELECT jsonb_agg(current_setting('regress.template')::jsonb->'stats'->0 || jsonb_build_object('calls', 1000000000000000))
           FROM generate_series(1, 9500))) || '{"queryid": 907, "role_id": 10}')));
\echo :LAST_ERROR_SQLSTATE
SELECT calls, rows, wal_bytes FROM indexpilot.queries WHERE queryid IN (906, 907);
SELECT calls, rows, wal_bytes FROM indexpilot.get_query_stats(since => NULL, max_rows => 1000) WHERE queryid = 906;
-- whatever a report says: it does not stop the flush, nor those that come after it
BEGIN;
SELECT count(indexpilot.log_query_stat('SELECT id FROM shop.orders WHERE total = ' || i, i, tenant_id => 'bad' || i)) FROM generate_series(1, 3) i;
UPDATE indexpilot.reported_stats SET counted = counted || '{"rows": 18446744073709551615, "sum_squares_ms": 1e308, "max_ms": 1e-320, "histogram": [18446744073709551615]}' WHERE counted->>'tenant_id' = 'bad1';
UPDATE indexpilot.reported_stats SET counted = counted || '{"rows": -1}' WHERE counted->>'tenant_id' = 'bad2';
COMMIT;
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT indexpilot.log_query_stat('SELECT id FROM shop.orders WHERE total = 1', 1, 5, tenant_id => 'bad1');
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT tenant_id, calls, rows, max_ms FROM indexpilot.query_stats WHERE tenant_id LIKE 'bad%' ORDER BY tenant_id;
SELECT value FROM indexpilot.status WHERE name = 'reports_waiting';
-- a long text is counted and not kept
SELECT indexpilot.log_query_stat('SELECT id FROM shop.orders WHERE note = ''' || repeat('long', 20000) || ''' AND total = 4711', 1, tenant_id => 'long');
SELECT indexpilot.capture_flush() > 0 AS flushed;
SELECT calls, (SELECT count(*) FROM indexpilot.workload_samples s WHERE s.workload_id = q.workload_id AND s.tenant_id = 'long') AS samples FROM indexpilot.query_stats q WHERE q.tenant_id = 'long';

-- without pg_stat_statements there is no history
SELECT indexpilot.import_pg_stat_statements();
\echo :LAST_ERROR_SQLSTATE
SELECT indexpilot.capture_reset();
SELECT count(*) AS templates FROM indexpilot.queries;
DROP FUNCTION shop.peek(text);
DROP OWNED BY regress_indexpilot_a, regress_indexpilot_b;
DROP ROLE regress_indexpilot_a, regress_indexpilot_b, regress_indexpilot_monitor;
