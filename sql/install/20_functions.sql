-- The SQL interface. Rust functions are declared here and not by pgrx, so that the whole interface, with defaults, comments and
-- rights, is one document. Functions that act are revoked from PUBLIC in 90_grants.sql.

-- --------------------------------------------------------------------------------------------------------------- the main job
CREATE FUNCTION analyze_and_create_indexes(
    dry_run boolean DEFAULT false, tables pg_catalog.regclass[] DEFAULT NULL, tenant_id text DEFAULT NULL,
    storage_budget bigint DEFAULT NULL, concurrently boolean DEFAULT true)
RETURNS TABLE (recommendation_id bigint, action_id bigint, table_name text, index_name text, definition text, decision text,
    reason text, reason_detail text, estimated_bytes bigint, cost_before double precision, cost_after double precision,
    saved_ms_per_hour double precision, write_ms_per_hour double precision)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'analyze_and_create_indexes_wrapper';
COMMENT ON FUNCTION analyze_and_create_indexes(boolean, pg_catalog.regclass[], text, bigint, boolean) IS
'Analyses the captured workload, decides which indexes pay and queues them; building starts when the caller''s transaction commits. dry_run: decide only. tables: only these, NULL for all. tenant_id: only what this tenant ran. storage_budget: bytes, instead of indexpilot.select_storage_budget. concurrently => false builds at once inside the caller''s transaction, which blocks writes to the tables';

CREATE FUNCTION advise(
    queries text[], weights double precision[] DEFAULT NULL, storage_budget bigint DEFAULT NULL, max_columns integer DEFAULT NULL,
    time_limit interval DEFAULT NULL)
RETURNS TABLE (table_name text, index_name text, definition text, decision text, reason text, reason_detail text,
    estimated_bytes bigint, cost_before double precision, cost_after double precision, query_numbers integer[])
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'advise_wrapper';
COMMENT ON FUNCTION advise(text[], double precision[], bigint, integer, interval) IS
'Which indexes would pay for these queries, which need not ever have run. Changes nothing. weights: how often each is run per hour; without them the cost of writes is left out. storage_budget: bytes. Needs no preload';

CREATE FUNCTION what_if(query text, create_indexes text[] DEFAULT '{}', hide_indexes pg_catalog.regclass[] DEFAULT '{}')
RETURNS TABLE (cost_before double precision, cost_after double precision, indexes_used text[], estimated_bytes bigint,
    plan_before text, plan_after text)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'what_if_wrapper';
COMMENT ON FUNCTION what_if(text, text[], pg_catalog.regclass[]) IS
'Plan and cost of a query as the database is, and as it would be with the CREATE INDEX statements carried out and the hidden indexes gone. Changes nothing, for nobody';

CREATE FUNCTION explain_decision(id bigint) RETURNS text
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'explain_decision_wrapper';
COMMENT ON FUNCTION explain_decision(bigint) IS
'A decision in words (markdown): queries, costs before and after, storage, write price, guard findings, what else was weighed';

CREATE FUNCTION approve(id bigint) RETURNS bigint
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'approve_wrapper';
COMMENT ON FUNCTION approve(bigint) IS 'Queues the action of a proposed decision, or of one that reject() turned down, on a partitioned table one for each partition, and returns its number or the first; building starts when the transaction commits';

CREATE FUNCTION reject(id bigint, reason text DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'reject_wrapper';
COMMENT ON FUNCTION reject(bigint, text) IS 'Turns a proposed decision down: the same index is not proposed again until approve() is called for that decision';

-- ------------------------------------------------------------------------------------------------------------------- actions
CREATE FUNCTION cancel(action_id bigint) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'cancel_wrapper';
COMMENT ON FUNCTION cancel(bigint) IS 'Cancels an action that is queued, observing, blocked or building; what a build left is removed. False when it was over already, and, with a warning, when it cannot be cancelled now: a drop that has begun goes on';

CREATE FUNCTION rollback(mutation_id bigint) RETURNS bigint
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'rollback_wrapper';
COMMENT ON FUNCTION rollback(bigint) IS 'Takes back a mutation of mutation_log and returns the number of the mutation that does so; index changes are queued and run when the transaction commits';

CREATE FUNCTION rollback_preview(mutation_id bigint) RETURNS TABLE (statement text, effect text)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'rollback_preview_wrapper';
COMMENT ON FUNCTION rollback_preview(bigint) IS 'What rollback() of a mutation would run, and what it would mean';

CREATE FUNCTION protect(index pg_catalog.regclass) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'protect_wrapper';
COMMENT ON FUNCTION protect(pg_catalog.regclass) IS 'Forbids IndexPilot to drop, rebuild or hide an index';

CREATE FUNCTION unprotect(index pg_catalog.regclass) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'unprotect_wrapper';
COMMENT ON FUNCTION unprotect(pg_catalog.regclass) IS 'Takes back protect(); false when the index was not protected';

CREATE PROCEDURE wait_for_actions(timeout interval DEFAULT '1 hour')
LANGUAGE c AS 'MODULE_PATHNAME', 'wait_for_actions_wrapper';
COMMENT ON PROCEDURE wait_for_actions(interval) IS 'Waits until no action is queued or running, or the time is over; holds no snapshot, so builds can finish. Not inside a transaction block';

-- ------------------------------------------------------------------------------------------------------------------- capture
CREATE FUNCTION capture_flush() RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'capture_flush_wrapper';
COMMENT ON FUNCTION capture_flush() IS 'Moves what was captured in this database from shared memory to the tables now; returns the number of templates that had run';

CREATE FUNCTION capture_reset() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'capture_reset_wrapper';
COMMENT ON FUNCTION capture_reset() IS 'Forgets the captured workload of this database';

-- -------------------------------------------------------------------------------------------------------------------- genome
CREATE FUNCTION bootstrap_genome_catalog() RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bootstrap_genome_catalog_wrapper';
COMMENT ON FUNCTION bootstrap_genome_catalog() IS 'Reads the live schema into genome_catalog; returns the number of new fields';

CREATE FUNCTION initialize_tenant_expression(tenant_id text) RETURNS bigint
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'initialize_tenant_expression_wrapper';
COMMENT ON FUNCTION initialize_tenant_expression(text) IS 'Gives a tenant the default expression of every field it has no row for; returns the number of rows added';

CREATE FUNCTION enable_field(tenant_id text, table_name pg_catalog.regclass, field_name name, reason text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'enable_field_wrapper';
COMMENT ON FUNCTION enable_field(text, pg_catalog.regclass, name, text) IS 'The tenant expresses the field from now on; returns the number of the mutation';

CREATE FUNCTION disable_field(tenant_id text, table_name pg_catalog.regclass, field_name name, reason text DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'disable_field_wrapper';
COMMENT ON FUNCTION disable_field(text, pg_catalog.regclass, name, text) IS 'The tenant no longer expresses the field; returns the number of the mutation';

CREATE FUNCTION get_genome_fields(table_name pg_catalog.regclass DEFAULT NULL) RETURNS SETOF indexpilot.genome_catalog
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT g.* FROM indexpilot.genome_catalog g
      LEFT JOIN pg_class c ON c.oid = $1 LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE $1 IS NULL OR (g.table_schema, g.table_name) = (n.nspname, c.relname)
     ORDER BY g.id
$$;
COMMENT ON FUNCTION get_genome_fields(pg_catalog.regclass) IS 'Fields of the genome, of one table or of all';

CREATE FUNCTION get_tenant_fields(tenant_id text)
RETURNS TABLE (table_schema name, table_name name, field_name name, enabled boolean, reason text, changed_at timestamptz)
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT g.table_schema, g.table_name, g.field_name, COALESCE(p.enabled, g.default_expression), p.reason, p.changed_at
      FROM indexpilot.genome_catalog g
      LEFT JOIN indexpilot.expression_profile p ON p.field_id = g.id AND p.tenant_id = $1
     ORDER BY g.id
$$;
COMMENT ON FUNCTION get_tenant_fields(text) IS 'Every field of the genome and whether the tenant expresses it';

-- ----------------------------------------------------------------------------------------------------------------------- log
CREATE FUNCTION log_audit_event(event text, cause text, details jsonb DEFAULT '{}', table_name pg_catalog.regclass DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'log_audit_event_wrapper';
COMMENT ON FUNCTION log_audit_event(text, text, jsonb, pg_catalog.regclass) IS 'Writes a row of one''s own into mutation_log; returns its number. event: any name but those under which IndexPilot itself logs';

CREATE FUNCTION get_recent_mutations(max_rows integer DEFAULT 50, table_name pg_catalog.regclass DEFAULT NULL)
RETURNS SETOF indexpilot.mutation_log
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.* FROM indexpilot.mutation_log m
      LEFT JOIN pg_class c ON c.oid = $2 LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE $2 IS NULL OR (m.table_schema, m.table_name) = (n.nspname, c.relname)
     ORDER BY m.id DESC LIMIT $1
$$;
COMMENT ON FUNCTION get_recent_mutations(integer, pg_catalog.regclass) IS 'The newest mutations, of one table or of all';

CREATE FUNCTION get_mutation_summary(since interval DEFAULT '7 days')
RETURNS TABLE (mutation text, count bigint, undone bigint, first_at timestamptz, last_at timestamptz)
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.mutation, count(*), count(m.undone_by), min(m.logged_at), max(m.logged_at)
      FROM indexpilot.mutation_log m WHERE m.logged_at >= now() - $1 GROUP BY m.mutation ORDER BY m.mutation
$$;
COMMENT ON FUNCTION get_mutation_summary(interval) IS 'How many mutations of each kind there were';

-- ------------------------------------------------------------------------------------------------------------------- control
CREATE FUNCTION disable_system(reason text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'disable_system_wrapper';
COMMENT ON FUNCTION disable_system(text) IS 'No action is started in this database from now on; running ones end. Survives a restart';

CREATE FUNCTION enable_system() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'enable_system_wrapper';
COMMENT ON FUNCTION enable_system() IS 'Takes back disable_system()';

CREATE FUNCTION system_status() RETURNS TABLE (name text, value text, description text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'system_status_wrapper';
COMMENT ON FUNCTION system_status() IS 'The rows of view status';

CREATE FUNCTION get_system_status() RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_object_agg(s.name, s.value) FROM indexpilot.system_status() s
$$;
COMMENT ON FUNCTION get_system_status() IS 'View status as one document';

-- ------------------------------------------------------------------------------------------------------------------ exchange
CREATE FUNCTION log_query_stat(
    query text, duration_ms double precision, rows bigint DEFAULT 0, tenant_id text DEFAULT NULL, calls bigint DEFAULT 1)
RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'log_query_stat_wrapper';
COMMENT ON FUNCTION log_query_stat(text, double precision, bigint, text, bigint) IS
'Counts executions that an application reports itself, for instance those that a pooler or another server ran. duration_ms and rows: of one execution. tenant_id: instead of indexpilot.tenant_id. calls: how many such executions. A query of more than 64 kB is counted and not kept as a sample, one of more than 1 MB is refused. The statement is looked up under the caller''s role and search_path; the next flush adds it to the template of the same query';

CREATE FUNCTION import_pg_stat_statements() RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'import_pg_stat_statements_wrapper';
COMMENT ON FUNCTION import_pg_stat_statements() IS
'Takes over what pg_stat_statements counted in this database and IndexPilot did not see itself, such as the time before the first restart; returns the number of templates that gained executions. Nothing counts twice, however often it is called. There are no histograms, so no percentiles, and no constants';

CREATE FUNCTION export_workload(since interval DEFAULT NULL) RETURNS jsonb
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'export_workload_wrapper';
COMMENT ON FUNCTION export_workload(interval) IS
'The captured workload as a document. On a standby: what ran there since the last call, taken out of shared memory, for import_workload() on the primary server; the first call begins capture there. On a primary server: what the caller may see of the tables, at most as old as since; a span of time that reaches into it counts as a whole. Samples hold constants only if indexpilot.capture_literals is on';

CREATE FUNCTION import_workload(document jsonb) RETURNS bigint
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'import_workload_wrapper';
COMMENT ON FUNCTION import_workload(jsonb) IS
'Counts what a standby of this server has run: the document comes from export_workload() there. Returns the number of templates, 0 when the document was counted before. Whoever may call it is trusted with what the workload says, on which indexes are decided. Samples are planned as the role that ran them, so they are kept only where the caller has the privileges of that role (a superuser has all), and up to 64 kB; executions count in any case';

-- --------------------------------------------------------------------------------------------------------------- the reader
CREATE FUNCTION may_see(role_id oid, tenant_id text) RETURNS boolean
LANGUAGE c STABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'may_see_wrapper';
COMMENT ON FUNCTION may_see(oid, text) IS
'Whether the caller may see what the role ran for the tenant: members of pg_read_all_stats all of it, others what their own roles ran, and of that, in a session with indexpilot.tenant_id set, only what is this tenant''s. A session without it sees all tenants of its roles; RESET ALL and DISCARD ALL take back what was set in the session, but not what ALTER ROLE ... SET has set';

-- --------------------------------------------------------------------------------------------------------------- percentiles
CREATE FUNCTION histogram_add(a bigint[], b bigint[]) RETURNS bigint[]
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'histogram_add_wrapper';
COMMENT ON FUNCTION histogram_add(bigint[], bigint[]) IS 'Sum of two histograms of workload_stats, bucket by bucket';

CREATE FUNCTION histogram_percentile(histogram bigint[], fraction double precision) RETURNS double precision
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'histogram_percentile_wrapper';
COMMENT ON FUNCTION histogram_percentile(bigint[], double precision) IS 'Percentile (0 to 1) of a histogram of workload_stats, in milliseconds, to within 10 percent';

CREATE AGGREGATE histogram_sum(bigint[]) (SFUNC = indexpilot.histogram_add, STYPE = bigint[], COMBINEFUNC = indexpilot.histogram_add, PARALLEL = SAFE);
COMMENT ON AGGREGATE histogram_sum(bigint[]) IS 'Sum of histograms of workload_stats, bucket by bucket';
