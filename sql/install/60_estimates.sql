-- Estimates: what an index would take and bring, and how far the planner could be asked.

CREATE FUNCTION estimate_build_cost(index_statement text)
RETURNS TABLE (way text, table_name text, estimated_bytes bigint, build_seconds double precision, temp_bytes bigint, free_bytes bigint,
    lock_mode text, blocks text, waits_for text, calibration text)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'estimate_build_cost_wrapper';
COMMENT ON FUNCTION estimate_build_cost(text) IS
'What building the index of a CREATE INDEX statement takes: a row for CREATE INDEX CONCURRENTLY, which IndexPilot uses, and one for a build in a transaction. Size, seconds (from this database''s own finished builds where there are three, see calibration), temporary space of the sort at its height, free space where the index would go, the lock it takes, what that blocks and what it waits for. Builds nothing';

CREATE FUNCTION estimate_query_cost_without_index(query text, index pg_catalog.regclass)
RETURNS TABLE (cost_with double precision, cost_without double precision, index_used boolean, indexes_instead text[], enforces text,
    plan_with text, plan_without text, plan_difference text)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'estimate_query_cost_without_index_wrapper';
COMMENT ON FUNCTION estimate_query_cost_without_index(text, pg_catalog.regclass) IS
'Cost and plan of a query as the database is, and as they would be without the index (of a partitioned index: without all of its parts). indexes_instead: what only the plan without it scans. enforces: what else would be lost (primary key, uniqueness, exclusion constraint, replica identity). plan_difference: both plans line by line, - only with it, + only without. Drops nothing';

CREATE FUNCTION get_field_selectivity(table_name pg_catalog.regclass, field_name name, value text DEFAULT NULL, operator text DEFAULT '=')
RETURNS TABLE (selectivity double precision, estimated_rows double precision, table_rows double precision, distinct_values double precision,
    null_share double precision, correlation double precision, condition text, based_on text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'get_field_selectivity_wrapper';
COMMENT ON FUNCTION get_field_selectivity(pg_catalog.regclass, name, text, text) IS
'Share of the rows that the planner expects to pass "field operator value", with what it knows of the field. value NULL: a value that is not known, as for a parameter of a generic plan. operator: any operator of the field''s type, LIKE, ILIKE, SIMILAR TO, and without a value IS NULL and IS NOT NULL. based_on: statistics, or default where the table was never analysed';

CREATE FUNCTION get_explain_usage_stats() RETURNS TABLE (name text, value double precision, description text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'get_explain_usage_stats_wrapper';
COMMENT ON FUNCTION get_explain_usage_stats() IS
'How planning the captured statements goes, one figure a row: coverage, success rate, failures by class, and what the cache of what-if results did in this session';
