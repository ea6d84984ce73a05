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

CREATE FUNCTION advise_frontier(
    queries text[], weights double precision[] DEFAULT NULL, budgets bigint[] DEFAULT NULL, max_columns integer DEFAULT NULL,
    time_limit interval DEFAULT NULL)
RETURNS TABLE (storage_budget bigint, estimated_bytes bigint, cost_before double precision, cost_after double precision,
    relative_cost double precision, indexes text[], gap double precision, planner_calls bigint)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'advise_frontier_wrapper';
COMMENT ON FUNCTION advise_frontier(text[], double precision[], bigint[], integer, interval) IS
'What more storage would buy: for each budget, ascending, the best indexes for these queries and the planner''s cost with them. budgets: bytes; NULL stands for ten shares of the size of the tables, from 1 to 50 percent. weights, max_columns: as for advise(). time_limit: for all budgets together. gap: proven distance to the optimum. planner_calls: questions to the planner so far, which are shared by all budgets. Changes nothing';

-- -------------------------------------------------------------------------------------------------- why an index, and why none
CREATE FUNCTION should_create_index(table_name pg_catalog.regclass, field_name name)
RETURNS TABLE (decision text, reason text, reason_detail text, definition text, estimated_bytes bigint, estimated_build_ms double precision,
    cost_before double precision, cost_after double precision, saved_ms_per_hour double precision, write_ms_per_hour double precision,
    templates bigint, calls bigint)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'should_create_index_wrapper';
COMMENT ON FUNCTION should_create_index(pg_catalog.regclass, name) IS
'Whether the captured workload of the table wants an index that begins with the field. decision: create, hold (a guard forbids it), exists, or not_recommended; reason and reason_detail say why. definition: the index that would be made, or that was weighed. templates and calls: how many captured queries search, join, sort or group by the field. Stores and changes nothing';

CREATE TABLE query_verdicts (
    workload_id   bigint PRIMARY KEY REFERENCES workload ON DELETE CASCADE,
    analysis_id   bigint NOT NULL,
    decided_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    reason        text NOT NULL,
    reason_detail text NOT NULL,
    cost_before   double precision,
    cost_after    double precision,
    ms_per_cost   double precision,
    recommendation_ids bigint[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE query_verdicts IS 'What the last analysis of each query template said: which index is proposed for it, or why none; view query_advice is for users';
COMMENT ON COLUMN query_verdicts.workload_id IS 'Template';
COMMENT ON COLUMN query_verdicts.analysis_id IS 'Run that said it; a plain number, because runs are deleted';
COMMENT ON COLUMN query_verdicts.decided_at IS 'When it was said';
COMMENT ON COLUMN query_verdicts.reason IS 'Reason code, as in query_advice';
COMMENT ON COLUMN query_verdicts.reason_detail IS 'The reason in a sentence, with figures';
COMMENT ON COLUMN query_verdicts.cost_before IS 'Planner cost of one execution with the indexes of that time';
COMMENT ON COLUMN query_verdicts.cost_after IS 'The same with the proposed indexes';
COMMENT ON COLUMN query_verdicts.ms_per_cost IS 'Measured milliseconds for one unit of planner cost; NULL when nothing was measured';
COMMENT ON COLUMN query_verdicts.recommendation_ids IS 'Decisions that propose an index for it; plain numbers, because decisions are superseded';

CREATE VIEW query_advice WITH (security_barrier) AS
SELECT q.id AS workload_id, q.role_name, q.query, q.command, q.tables, q.calls, q.total_ms, q.mean_ms,
       CASE WHEN q.plan_state = 'unplannable' THEN 'unplannable:' || COALESCE(p.failure, 'other')
            WHEN v.workload_id IS NOT NULL THEN v.reason
            WHEN q.command = 'utility' THEN 'no_plan'
            WHEN NOT EXISTS (SELECT FROM indexpilot.workload_sample s WHERE s.workload_id = q.id) THEN 'no_sample'
            ELSE 'not_analysed' END AS reason,
       CASE WHEN q.plan_state = 'unplannable' THEN 'No sample of it could be planned: ' || COALESCE(q.plan_error, 'the reason was not kept') || '.'
            WHEN v.workload_id IS NOT NULL THEN v.reason_detail
            WHEN q.command = 'utility' THEN 'Commands of this kind have no plan.'
            WHEN NOT EXISTS (SELECT FROM indexpilot.workload_sample s WHERE s.workload_id = q.id)
                 THEN 'No statement of it was captured with what is needed to plan it again.'
            WHEN q.plan_state = 'pending' THEN 'No sample of it was planned yet; run: SELECT * FROM indexpilot.analyze_and_create_indexes(dry_run => true).'
            ELSE 'It came after the last analysis; run: SELECT * FROM indexpilot.analyze_and_create_indexes(dry_run => true).' END AS reason_detail,
       v.cost_before, v.cost_after, v.ms_per_cost, v.cost_before * v.ms_per_cost AS ms_before, v.cost_after * v.ms_per_cost AS ms_after,
       v.recommendation_ids, v.analysis_id, v.decided_at
  FROM indexpilot.queries q LEFT JOIN indexpilot.query_verdicts v ON v.workload_id = q.id
       LEFT JOIN indexpilot.workload_profile p ON p.workload_id = q.id;
COMMENT ON VIEW query_advice IS 'For every captured query: the index that is proposed for it, or the reason why none is';
COMMENT ON COLUMN query_advice.workload_id IS 'Number of the template, as in view queries';
COMMENT ON COLUMN query_advice.role_name IS 'Role that ran it';
COMMENT ON COLUMN query_advice.query IS 'Normalised text';
COMMENT ON COLUMN query_advice.command IS 'Kind of statement';
COMMENT ON COLUMN query_advice.tables IS 'Base tables';
COMMENT ON COLUMN query_advice.calls IS 'Executions that completed';
COMMENT ON COLUMN query_advice.total_ms IS 'Execution time, milliseconds';
COMMENT ON COLUMN query_advice.mean_ms IS 'Mean execution time, milliseconds';
COMMENT ON COLUMN query_advice.reason IS 'gain (an index is proposed), already_best, table_small, not_selective, write_heavy, budget, table_cap, guard, not_expressed, rarely_used, refused (its tables may get no index), writes_only, no_table, negligible (too little time to be looked at), beyond_limit (not among the heaviest, which one analysis looks at), unplannable:<class of the failure>, no_plan (a command without a plan), no_sample, not_analysed';
COMMENT ON COLUMN query_advice.reason_detail IS 'The reason in a sentence, with figures';
COMMENT ON COLUMN query_advice.cost_before IS 'Planner cost of one execution with the indexes at the time of the analysis';
COMMENT ON COLUMN query_advice.cost_after IS 'The same with the proposed indexes';
COMMENT ON COLUMN query_advice.ms_per_cost IS 'Milliseconds for one unit of planner cost, measured on executions that were planned as it is planned now; NULL when there are none';
COMMENT ON COLUMN query_advice.ms_before IS 'Milliseconds of one execution, by cost_before';
COMMENT ON COLUMN query_advice.ms_after IS 'Milliseconds of one execution, by cost_after';
COMMENT ON COLUMN query_advice.recommendation_ids IS 'Decisions that propose an index for it, for explain_decision()';
COMMENT ON COLUMN query_advice.analysis_id IS 'Run that said so';
COMMENT ON COLUMN query_advice.decided_at IS 'When it was said';
