-- How tables and fields are used: what the profile step read from the statements of each template, and what that means with the
-- executions that were counted. Measurements like the workload they belong to, so nothing here is dumped.

CREATE TABLE workload_profile (
    workload_id   bigint PRIMARY KEY REFERENCES workload ON DELETE CASCADE,
    profiled_at   timestamptz NOT NULL,
    last_sample_id bigint NOT NULL,
    samples       integer NOT NULL,
    planned       integer NOT NULL,
    failure       text,
    tenant_source text,
    tenant_keys   text
);
COMMENT ON TABLE workload_profile IS 'When each template was profiled, and what came of it';
COMMENT ON COLUMN workload_profile.workload_id IS 'Template';
COMMENT ON COLUMN workload_profile.profiled_at IS 'When its samples were last planned for the profile';
COMMENT ON COLUMN workload_profile.last_sample_id IS 'Newest sample of that time; a plain number, because samples come and go';
COMMENT ON COLUMN workload_profile.samples IS 'Samples that there were';
COMMENT ON COLUMN workload_profile.planned IS 'Samples that could be planned';
COMMENT ON COLUMN workload_profile.failure IS 'Class of the failure when none could: object_missing, type_unclear, no_privilege, timeout, not_supported, would_write, bad_value, no_resources, syntax, other';
COMMENT ON COLUMN workload_profile.tenant_source IS 'Where its statements name their tenant: $n (parameter), or literal n (counted from 0 in the text)';
COMMENT ON COLUMN workload_profile.tenant_keys IS 'Hash of the tenant columns of the genome at that time; when they change, the template is profiled again';

CREATE TABLE workload_table (
    workload_id   bigint NOT NULL REFERENCES workload ON DELETE CASCADE,
    table_id      oid NOT NULL,
    written       boolean NOT NULL,
    PRIMARY KEY (workload_id, table_id)
);
COMMENT ON TABLE workload_table IS 'Tables that each profiled template touches';
COMMENT ON COLUMN workload_table.workload_id IS 'Template';
COMMENT ON COLUMN workload_table.table_id IS 'OID of the table; of a partitioned table itself, not of its partitions';
COMMENT ON COLUMN workload_table.written IS 'Its statements add, change or remove rows of the table';

CREATE TABLE workload_field (
    workload_id   bigint NOT NULL REFERENCES workload ON DELETE CASCADE,
    table_id      oid NOT NULL,
    attnum        smallint NOT NULL,
    usage         text NOT NULL CHECK (usage IN ('filter', 'join', 'order', 'group', 'output', 'insert', 'update')),
    comparison    text NOT NULL CHECK (comparison IN ('none', 'equal', 'in', 'range', 'like', 'null', 'other', 'expression')),
    operator_id   oid NOT NULL,
    selectivity   double precision,
    selectivity_min double precision,
    selectivity_max double precision,
    PRIMARY KEY (workload_id, table_id, attnum, usage, comparison, operator_id)
);
CREATE INDEX workload_field_field ON workload_field (table_id, attnum);
COMMENT ON TABLE workload_field IS 'What each profiled template uses fields for';
COMMENT ON COLUMN workload_field.workload_id IS 'Template';
COMMENT ON COLUMN workload_field.table_id IS 'OID of the table';
COMMENT ON COLUMN workload_field.attnum IS 'Number of the column';
COMMENT ON COLUMN workload_field.usage IS 'filter (condition on the table alone), join, order, group (GROUP BY, DISTINCT), output, insert (a new row is given a value), update (UPDATE, ON CONFLICT DO UPDATE or MERGE sets it)';
COMMENT ON COLUMN workload_field.comparison IS 'Of conditions: equal, in, range, like (LIKE, regular expressions, prefixes), null, other, or expression when not the field itself is compared; else none';
COMMENT ON COLUMN workload_field.operator_id IS 'OID of the operator with the field on its left; 0 when there is none';
COMMENT ON COLUMN workload_field.selectivity IS 'Share of the rows that pass, as the planner estimated it for the samples: mean';
COMMENT ON COLUMN workload_field.selectivity_min IS 'Smallest of these estimates';
COMMENT ON COLUMN workload_field.selectivity_max IS 'Largest of these estimates';

-- The views count what the reader may see in query_stats, so they are barriers as that is.
CREATE VIEW table_usage WITH (security_barrier) AS
SELECT c.oid::pg_catalog.regclass AS table_name, q.tenant_id,
       LEAST(COALESCE(pg_catalog.sum(q.calls) FILTER (WHERE NOT t.written), 0), 9223372036854775807)::bigint AS reads,
       LEAST(COALESCE(pg_catalog.sum(q.calls) FILTER (WHERE t.written), 0), 9223372036854775807)::bigint AS writes,
       LEAST(COALESCE(pg_catalog.sum(q.rows) FILTER (WHERE NOT t.written), 0), 9223372036854775807)::bigint AS rows_returned,
       LEAST(COALESCE(pg_catalog.sum(q.rows) FILTER (WHERE t.written), 0), 9223372036854775807)::bigint AS rows_written,
       COALESCE(pg_catalog.sum(q.total_ms) FILTER (WHERE NOT t.written), 0) AS read_ms,
       COALESCE(pg_catalog.sum(q.total_ms) FILTER (WHERE t.written), 0) AS write_ms,
       pg_catalog.max(t.last_seen_at) AS last_seen_at
  FROM (SELECT u.workload_id, u.table_id, u.written, w.last_seen_at
          FROM indexpilot.workload_table u JOIN indexpilot.workload w ON w.id = u.workload_id
        UNION ALL
        SELECT w.id, r.table_id, w.command IN ('insert', 'update', 'delete', 'merge') AND pg_catalog.cardinality(w.relations) = 1,
               w.last_seen_at
          FROM indexpilot.workload w CROSS JOIN LATERAL pg_catalog.unnest(w.relations) r(table_id)
         WHERE NOT EXISTS (SELECT FROM indexpilot.workload_table u WHERE u.workload_id = w.id)) t
  JOIN indexpilot.query_stats q ON q.workload_id = t.workload_id
  JOIN pg_catalog.pg_class c ON c.oid = t.table_id
 GROUP BY c.oid, q.tenant_id;
COMMENT ON VIEW table_usage IS 'Reads and writes of each table by tenant. A statement counts as a write of the tables that it changes and as a read of the others; of templates that are not profiled yet only those on one table are known to write. Tenants as in query_stats';
COMMENT ON COLUMN table_usage.table_name IS 'Table';
COMMENT ON COLUMN table_usage.tenant_id IS 'Tenant, empty for statements without one';
COMMENT ON COLUMN table_usage.reads IS 'Executions that read it without changing it';
COMMENT ON COLUMN table_usage.writes IS 'Executions that change it';
COMMENT ON COLUMN table_usage.rows_returned IS 'Rows that the reads returned';
COMMENT ON COLUMN table_usage.rows_written IS 'Rows that the writes changed';
COMMENT ON COLUMN table_usage.read_ms IS 'Execution time of the reads, milliseconds';
COMMENT ON COLUMN table_usage.write_ms IS 'Execution time of the writes, milliseconds';
COMMENT ON COLUMN table_usage.last_seen_at IS 'When a statement on it was last captured';

CREATE VIEW field_uses WITH (security_barrier) AS
SELECT a.attrelid::pg_catalog.regclass AS table_name, a.attname AS field_name, f.workload_id, f.usage,
       NULLIF(f.comparison, 'none') AS comparison, NULLIF(f.operator_id, 0)::pg_catalog.regoperator AS operator,
       s.calls, s.rows, s.total_ms, f.selectivity, f.selectivity_min, f.selectivity_max
  FROM indexpilot.workload_field f
  JOIN (SELECT q.workload_id, LEAST(pg_catalog.sum(q.calls), 9223372036854775807)::bigint AS calls,
               LEAST(pg_catalog.sum(q.rows), 9223372036854775807)::bigint AS rows,
               pg_catalog.sum(q.total_ms) AS total_ms
          FROM indexpilot.query_stats q GROUP BY q.workload_id) s USING (workload_id)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = f.table_id AND a.attnum = f.attnum AND NOT a.attisdropped;
COMMENT ON VIEW field_uses IS 'What each query template uses fields for, with its executions';
COMMENT ON COLUMN field_uses.table_name IS 'Table';
COMMENT ON COLUMN field_uses.field_name IS 'Field';
COMMENT ON COLUMN field_uses.workload_id IS 'Number of the template, as in view queries';
COMMENT ON COLUMN field_uses.usage IS 'filter (condition on the table alone), join, order, group (GROUP BY, DISTINCT), output, insert, update';
COMMENT ON COLUMN field_uses.comparison IS 'Of conditions: equal, in, range, like, null, other, or expression when not the field itself is compared';
COMMENT ON COLUMN field_uses.operator IS 'Operator with the field on its left';
COMMENT ON COLUMN field_uses.calls IS 'Executions of the template';
COMMENT ON COLUMN field_uses.rows IS 'Rows that they returned or changed';
COMMENT ON COLUMN field_uses.total_ms IS 'Execution time, milliseconds';
COMMENT ON COLUMN field_uses.selectivity IS 'Share of the rows that pass, as the planner estimated it for the samples: mean';
COMMENT ON COLUMN field_uses.selectivity_min IS 'Smallest of these estimates';
COMMENT ON COLUMN field_uses.selectivity_max IS 'Largest of these estimates';

CREATE VIEW field_usage WITH (security_barrier) AS
SELECT u.table_name, u.field_name,
       LEAST(COALESCE(pg_catalog.sum(u.calls) FILTER (WHERE u.reads), 0), 9223372036854775807)::bigint AS reads,
       LEAST(COALESCE(pg_catalog.sum(u.calls) FILTER (WHERE u.filters), 0), 9223372036854775807)::bigint AS filters,
       LEAST(COALESCE(pg_catalog.sum(u.calls) FILTER (WHERE u.joins), 0), 9223372036854775807)::bigint AS joins,
       LEAST(COALESCE(pg_catalog.sum(u.calls) FILTER (WHERE u.orders), 0), 9223372036854775807)::bigint AS orders,
       LEAST(COALESCE(pg_catalog.sum(u.calls) FILTER (WHERE u.groups), 0), 9223372036854775807)::bigint AS groups,
       LEAST(COALESCE(pg_catalog.sum(u.calls) FILTER (WHERE u.outputs), 0), 9223372036854775807)::bigint AS outputs,
       LEAST(COALESCE(pg_catalog.sum(u.calls) FILTER (WHERE u.inserts), 0), 9223372036854775807)::bigint AS inserts,
       LEAST(COALESCE(pg_catalog.sum(u.rows) FILTER (WHERE u.inserts), 0), 9223372036854775807)::bigint AS rows_inserted,
       LEAST(COALESCE(pg_catalog.sum(u.calls) FILTER (WHERE u.updates), 0), 9223372036854775807)::bigint AS updates,
       LEAST(COALESCE(pg_catalog.sum(u.rows) FILTER (WHERE u.updates), 0), 9223372036854775807)::bigint AS rows_updated,
       pg_catalog.sum(u.selectivity * u.calls)
           / NULLIF(pg_catalog.sum(u.calls) FILTER (WHERE u.selectivity IS NOT NULL), 0) AS selectivity,
       COALESCE(pg_catalog.sum(u.total_ms) FILTER (WHERE u.reads), 0) AS read_ms,
       COALESCE(pg_catalog.sum(u.total_ms) FILTER (WHERE u.inserts OR u.updates), 0) AS write_ms
  FROM (SELECT f.workload_id, f.table_name, f.field_name, f.calls, f.rows, f.total_ms,
               pg_catalog.bool_or(f.usage NOT IN ('insert', 'update')) AS reads,
               pg_catalog.bool_or(f.usage = 'filter') AS filters, pg_catalog.bool_or(f.usage = 'join') AS joins,
               pg_catalog.bool_or(f.usage = 'order') AS orders, pg_catalog.bool_or(f.usage = 'group') AS groups,
               pg_catalog.bool_or(f.usage = 'output') AS outputs, pg_catalog.bool_or(f.usage = 'insert') AS inserts,
               pg_catalog.bool_or(f.usage = 'update') AS updates,
               pg_catalog.min(f.selectivity) FILTER (WHERE f.usage = 'filter') AS selectivity
          FROM indexpilot.field_uses f
         GROUP BY f.workload_id, f.table_name, f.field_name, f.calls, f.rows, f.total_ms) u
 GROUP BY u.table_name, u.field_name;
COMMENT ON VIEW field_usage IS 'Executions that use each field, by what they use it for; one execution may count in several columns';
COMMENT ON COLUMN field_usage.table_name IS 'Table';
COMMENT ON COLUMN field_usage.field_name IS 'Field';
COMMENT ON COLUMN field_usage.reads IS 'Executions that read it in any way';
COMMENT ON COLUMN field_usage.filters IS 'Executions with a condition on it';
COMMENT ON COLUMN field_usage.joins IS 'Executions that join by it';
COMMENT ON COLUMN field_usage.orders IS 'Executions that sort by it';
COMMENT ON COLUMN field_usage.groups IS 'Executions with GROUP BY or DISTINCT of it';
COMMENT ON COLUMN field_usage.outputs IS 'Executions that return it, or something computed from it';
COMMENT ON COLUMN field_usage.inserts IS 'Executions that give it a value in new rows';
COMMENT ON COLUMN field_usage.rows_inserted IS 'Rows of these executions';
COMMENT ON COLUMN field_usage.updates IS 'Executions that set it in existing rows: updates of an indexed field cannot be heap-only';
COMMENT ON COLUMN field_usage.rows_updated IS 'Rows of these executions; of INSERT ... ON CONFLICT and MERGE the new ones too';
COMMENT ON COLUMN field_usage.selectivity IS 'Share of the rows that pass its most selective condition, weighted by executions';
COMMENT ON COLUMN field_usage.read_ms IS 'Execution time of the reads, milliseconds';
COMMENT ON COLUMN field_usage.write_ms IS 'Execution time of inserts and updates, milliseconds';

CREATE FUNCTION check_field(table_name pg_catalog.regclass, field_name name) RETURNS boolean
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'check_field_wrapper';
COMMENT ON FUNCTION check_field(pg_catalog.regclass, name) IS 'True when the table has the field; otherwise an error';

CREATE FUNCTION get_field_usage_stats(table_name pg_catalog.regclass, field_name name)
RETURNS TABLE (usage text, comparison text, operator text, templates bigint, calls bigint, rows bigint, total_ms double precision,
    selectivity double precision, selectivity_min double precision, selectivity_max double precision)
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    WITH f AS (SELECT * FROM indexpilot.field_uses u
          WHERE indexpilot.check_field($1, $2) AND u.table_name = $1 AND u.field_name = $2),
    kinds AS (
        SELECT DISTINCT (f.usage IN ('insert', 'update'))::integer AS place,
               CASE WHEN f.usage IN ('insert', 'update') THEN 'write' ELSE 'read' END AS usage, NULL AS comparison,
               NULL::regoperator AS operator, f.workload_id, f.calls, f.rows, f.total_ms, NULL::float8 AS selectivity,
               NULL::float8 AS selectivity_min, NULL::float8 AS selectivity_max
          FROM f
        UNION ALL
        SELECT 2, f.usage, f.comparison, f.operator, f.workload_id, f.calls, f.rows, f.total_ms, f.selectivity, f.selectivity_min,
               f.selectivity_max
          FROM f)
    SELECT k.usage, k.comparison, k.operator::text, count(*), LEAST(sum(k.calls), 9223372036854775807)::bigint,
           LEAST(sum(k.rows), 9223372036854775807)::bigint, sum(k.total_ms),
           COALESCE(sum(k.selectivity * k.calls) / NULLIF(sum(k.calls) FILTER (WHERE k.selectivity IS NOT NULL), 0),
                    avg(k.selectivity)), min(k.selectivity_min), max(k.selectivity_max)
      FROM kinds k GROUP BY k.place, k.usage, k.comparison, k.operator
     ORDER BY k.place, k.usage COLLATE "C", sum(k.calls) DESC, k.comparison COLLATE "C", k.operator::text COLLATE "C"
$$;
COMMENT ON FUNCTION get_field_usage_stats(pg_catalog.regclass, name) IS
'How a field is used: the rows read and write are the totals, the others tell what for and by which operators, with the selectivity that the planner saw. Executions, rows and time are those of whole statements';

CREATE FUNCTION check_table(table_name pg_catalog.regclass) RETURNS boolean
LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'check_table_wrapper';
COMMENT ON FUNCTION check_table(pg_catalog.regclass) IS 'True for a table, partitioned or not, and a materialized view; otherwise an error';

CREATE FUNCTION get_table_size_info(table_name pg_catalog.regclass DEFAULT NULL)
RETURNS TABLE (table_schema name, table_name name, kind text, row_estimate bigint, live_rows bigint, dead_rows bigint,
    heap_bytes bigint, toast_bytes bigint, index_bytes bigint, total_bytes bigint, index_count integer,
    last_vacuum timestamptz, last_analyze timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT n.nspname, c.relname,
           CASE c.relkind WHEN 'p' THEN 'partitioned table' WHEN 'm' THEN 'materialized view' ELSE 'table' END,
           z.row_estimate, z.live_rows, z.dead_rows, z.total_bytes - z.toast_bytes - z.index_bytes, z.toast_bytes, z.index_bytes,
           z.total_bytes, (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid)::integer, z.last_vacuum, z.last_analyze
      FROM (SELECT t.oid, t.relname, t.relkind, t.relnamespace
              FROM pg_class t WHERE t.oid = $1 AND indexpilot.check_table($1)
            UNION ALL
            SELECT t.oid, t.relname, t.relkind, t.relnamespace
              FROM pg_class t JOIN pg_namespace s ON s.oid = t.relnamespace
             WHERE $1 IS NULL AND t.relkind IN ('r', 'm', 'p') AND NOT t.relispartition
               AND s.nspname NOT IN ('pg_catalog', 'information_schema', 'indexpilot') AND s.nspname NOT LIKE 'pg\_%') c
           JOIN pg_namespace n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL (
           SELECT sum(NULLIF(l.reltuples, -1))::bigint AS row_estimate,
                  COALESCE(sum(pg_stat_get_live_tuples(l.oid)), 0)::bigint AS live_rows,
                  COALESCE(sum(pg_stat_get_dead_tuples(l.oid)), 0)::bigint AS dead_rows,
                  COALESCE(sum(pg_total_relation_size(l.oid)), 0)::bigint AS total_bytes,
                  COALESCE(sum(pg_total_relation_size(NULLIF(l.reltoastrelid, 0))), 0)::bigint AS toast_bytes,
                  COALESCE(sum(pg_indexes_size(l.oid)), 0)::bigint AS index_bytes,
                  min(GREATEST(pg_stat_get_last_vacuum_time(l.oid), pg_stat_get_last_autovacuum_time(l.oid))) AS last_vacuum,
                  min(GREATEST(pg_stat_get_last_analyze_time(l.oid), pg_stat_get_last_autoanalyze_time(l.oid))) AS last_analyze
             FROM (SELECT c.oid WHERE c.relkind <> 'p'
                   UNION ALL
                   SELECT t.relid FROM pg_partition_tree(c.oid) t WHERE c.relkind = 'p' AND t.isleaf) leaf
                  JOIN pg_class l ON l.oid = leaf.oid) z
     ORDER BY z.total_bytes DESC, n.nspname, c.relname
$$;
COMMENT ON FUNCTION get_table_size_info(pg_catalog.regclass) IS
'Size of a table, or of all user tables, largest first: rows as the planner and as the statistics know them, bytes of heap (with its maps), TOAST and indexes. A partitioned table counts with all its partitions';
