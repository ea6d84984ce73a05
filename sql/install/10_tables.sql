-- Tables of IndexPilot. Users read the views of 30_views.sql; only the extension's own code writes here.
-- What belongs to users (genome, profiles, log, registry of managed and protected indexes, the switch) is marked for pg_dump at the end; measurements are not.

-- Nobody else may have a hand in the schema: what he put there could stand for what this script and the extension's functions mean.
CREATE FUNCTION check_schema() RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'check_schema_wrapper';
SELECT check_schema();
DROP FUNCTION check_schema();

-- ---------------------------------------------------------------------------------------------------------------- genome
CREATE TABLE genome_catalog (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_schema  name NOT NULL,
    table_name    name NOT NULL,
    field_name    name NOT NULL,
    field_type    text NOT NULL,
    required      boolean NOT NULL DEFAULT false,
    indexable     boolean NOT NULL DEFAULT true,
    default_expression boolean NOT NULL DEFAULT true,
    feature_group text,
    tenant_key    boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE (table_schema, table_name, field_name)
);
COMMENT ON TABLE genome_catalog IS 'The schema''s genome: every field of every user table that IndexPilot may think about';
COMMENT ON COLUMN genome_catalog.id IS 'Number of the field';
COMMENT ON COLUMN genome_catalog.table_schema IS 'Schema of the table';
COMMENT ON COLUMN genome_catalog.table_name IS 'Name of the table';
COMMENT ON COLUMN genome_catalog.field_name IS 'Name of the column';
COMMENT ON COLUMN genome_catalog.field_type IS 'SQL type of the column';
COMMENT ON COLUMN genome_catalog.required IS 'The column is NOT NULL';
COMMENT ON COLUMN genome_catalog.indexable IS 'IndexPilot may put the field into an index';
COMMENT ON COLUMN genome_catalog.default_expression IS 'Tenants without a row in expression_profile express the field';
COMMENT ON COLUMN genome_catalog.feature_group IS 'Name of the feature that the field belongs to, for switching fields together';
COMMENT ON COLUMN genome_catalog.tenant_key IS 'The field says which tenant a row belongs to';
COMMENT ON COLUMN genome_catalog.created_at IS 'When the field was first seen';
COMMENT ON COLUMN genome_catalog.updated_at IS 'When the row was last changed';

CREATE TABLE expression_profile (
    tenant_id     text NOT NULL CHECK (tenant_id <> ''),
    field_id      bigint NOT NULL REFERENCES genome_catalog ON DELETE CASCADE,
    enabled       boolean NOT NULL,
    reason        text,
    changed_by    name NOT NULL DEFAULT session_user,
    changed_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (tenant_id, field_id)
);
CREATE INDEX expression_profile_field ON expression_profile (field_id);
COMMENT ON TABLE expression_profile IS 'Which fields each tenant expresses (uses); fields that nobody expresses are never indexed';
COMMENT ON COLUMN expression_profile.tenant_id IS 'Tenant, as text';
COMMENT ON COLUMN expression_profile.field_id IS 'Field of the genome';
COMMENT ON COLUMN expression_profile.enabled IS 'The tenant expresses the field';
COMMENT ON COLUMN expression_profile.reason IS 'Why it was switched, as the caller said';
COMMENT ON COLUMN expression_profile.changed_by IS 'Role that switched it';
COMMENT ON COLUMN expression_profile.changed_at IS 'When it was switched';

-- -------------------------------------------------------------------------------------------------------------- workload
CREATE TABLE workload (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queryid       bigint NOT NULL,
    role_id       oid NOT NULL,
    relations_hash bigint NOT NULL,
    nested        boolean NOT NULL DEFAULT false,
    relations     oid[] NOT NULL DEFAULT '{}',
    relations_complete boolean NOT NULL DEFAULT true,
    command       text NOT NULL DEFAULT 'unknown' CHECK (command IN ('select', 'insert', 'update', 'delete', 'merge', 'utility', 'unknown')),
    fingerprint   text,
    query         text,
    plan_state    text NOT NULL DEFAULT 'pending' CHECK (plan_state IN ('pending', 'plannable', 'unplannable')),
    plan_error    text,
    base_cost     double precision,
    captured_calls bigint NOT NULL DEFAULT 0,
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_seen_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE (queryid, role_id, relations_hash, nested)
);
CREATE INDEX workload_relations ON workload USING gin (relations);
COMMENT ON TABLE workload IS 'Query templates that this database runs';
COMMENT ON COLUMN workload.id IS 'Number of the template';
COMMENT ON COLUMN workload.queryid IS 'Query identifier: the server''s, as in pg_stat_statements, where it computes one, otherwise made of the text';
COMMENT ON COLUMN workload.role_id IS 'OID of the role that ran it';
COMMENT ON COLUMN workload.relations_hash IS 'Hash of the OIDs of the base tables, which tells apart equal texts under different search paths';
COMMENT ON COLUMN workload.nested IS 'It ran inside a function, procedure or trigger, not as sent by the client';
COMMENT ON COLUMN workload.relations IS 'OIDs of the base tables, at most 16';
COMMENT ON COLUMN workload.relations_complete IS 'False when there are more base tables than that';
COMMENT ON COLUMN workload.command IS 'Kind of statement';
COMMENT ON COLUMN workload.fingerprint IS 'Fingerprint of the text that survives a major upgrade (libpg_query)';
COMMENT ON COLUMN workload.query IS 'Normalised text: constants are replaced by $n';
COMMENT ON COLUMN workload.plan_state IS 'Whether a sample of it could be planned again';
COMMENT ON COLUMN workload.plan_error IS 'SQLSTATE when it could not, with the message, or with the class of the failure where a message could quote values';
COMMENT ON COLUMN workload.base_cost IS 'Planner cost at the last analysis, with the indexes of that time';
COMMENT ON COLUMN workload.captured_calls IS 'Executions that this server itself captured, ever; import_pg_stat_statements() leaves them out';
COMMENT ON COLUMN workload.first_seen_at IS 'When it was first captured';
COMMENT ON COLUMN workload.last_seen_at IS 'When it was last captured';

CREATE TABLE workload_sample (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workload_id   bigint NOT NULL REFERENCES workload ON DELETE CASCADE,
    tenant_id     text NOT NULL DEFAULT '',
    query         text NOT NULL,
    search_path   text NOT NULL,
    parameter_types oid[] NOT NULL DEFAULT '{}',
    parameter_values text[] NOT NULL DEFAULT '{}',
    captured_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
    priority      double precision NOT NULL DEFAULT EXTRACT(epoch FROM pg_catalog.clock_timestamp())::float8 / 86400 * pg_catalog.ln(2::float8)
                  - pg_catalog.ln(-pg_catalog.ln(1e-9 + 0.999999998 * pg_catalog.random()))
);
CREATE INDEX workload_sample_workload ON workload_sample (workload_id);
COMMENT ON TABLE workload_sample IS 'Statements as they were run, with what is needed to plan them again; holds literals, so nobody but superusers may read it';
COMMENT ON COLUMN workload_sample.id IS 'Number of the sample';
COMMENT ON COLUMN workload_sample.workload_id IS 'Template';
COMMENT ON COLUMN workload_sample.tenant_id IS 'Tenant (indexpilot.tenant_id) of the session, empty when it had none';
COMMENT ON COLUMN workload_sample.query IS 'Text as sent, with its literals';
COMMENT ON COLUMN workload_sample.search_path IS 'search_path of the session';
COMMENT ON COLUMN workload_sample.parameter_types IS 'Types of the parameters $1, $2, ...';
COMMENT ON COLUMN workload_sample.parameter_values IS 'Values of the parameters as text; NULL where NULL or not kept';
COMMENT ON COLUMN workload_sample.captured_at IS 'When it ran';
COMMENT ON COLUMN workload_sample.priority IS 'Those of the highest priority are kept: chance, with a weight that doubles every day, so that a choice of all times stays and new ones win in the end';

CREATE TABLE workload_stats (
    workload_id   bigint NOT NULL REFERENCES workload ON DELETE CASCADE,
    tenant_id     text NOT NULL DEFAULT '',
    bucket_at     timestamptz NOT NULL,
    calls         bigint NOT NULL CHECK (calls >= 0),
    errors        bigint NOT NULL CHECK (errors >= 0),
    error_ms      double precision NOT NULL,
    rows          bigint NOT NULL,
    total_ms      double precision NOT NULL,
    sum_squares_ms double precision NOT NULL,
    min_ms        double precision NOT NULL,
    max_ms        double precision NOT NULL,
    histogram     bigint[] NOT NULL,
    planner_cost  double precision NOT NULL,
    shared_blocks_hit bigint NOT NULL,
    shared_blocks_read bigint NOT NULL,
    temp_blocks   bigint NOT NULL,
    wal_bytes     bigint NOT NULL,
    PRIMARY KEY (workload_id, tenant_id, bucket_at)
);
CREATE INDEX workload_stats_bucket ON workload_stats (bucket_at);
COMMENT ON TABLE workload_stats IS 'Executions of each template by tenant and span of time; view query_stats is for users';
COMMENT ON COLUMN workload_stats.workload_id IS 'Template';
COMMENT ON COLUMN workload_stats.tenant_id IS 'Tenant; empty when the session had none, and for tenants beyond indexpilot.capture_max_tenants';
COMMENT ON COLUMN workload_stats.bucket_at IS 'Start of the span; a new one begins at least every indexpilot.capture_bucket and whenever an index appears or goes';
COMMENT ON COLUMN workload_stats.calls IS 'Executions that completed';
COMMENT ON COLUMN workload_stats.errors IS 'Executions that ended in an error or a cancel';
COMMENT ON COLUMN workload_stats.error_ms IS 'Time that the failed executions took, milliseconds; not part of total_ms';
COMMENT ON COLUMN workload_stats.rows IS 'Rows returned or changed';
COMMENT ON COLUMN workload_stats.total_ms IS 'Execution time, milliseconds';
COMMENT ON COLUMN workload_stats.sum_squares_ms IS 'Sum of the squares of the execution times in milliseconds, for the variance';
COMMENT ON COLUMN workload_stats.min_ms IS 'Shortest execution, milliseconds';
COMMENT ON COLUMN workload_stats.max_ms IS 'Longest execution, milliseconds';
COMMENT ON COLUMN workload_stats.histogram IS 'Executions by duration on a logarithmic scale: four buckets to each doubling, from one microsecond; empty ones at the end are left out';
COMMENT ON COLUMN workload_stats.planner_cost IS 'Sum of the planner''s cost estimates';
COMMENT ON COLUMN workload_stats.shared_blocks_hit IS 'Blocks found in shared buffers';
COMMENT ON COLUMN workload_stats.shared_blocks_read IS 'Blocks read into shared buffers';
COMMENT ON COLUMN workload_stats.temp_blocks IS 'Temporary blocks read and written';
COMMENT ON COLUMN workload_stats.wal_bytes IS 'Write-ahead log produced, bytes';

-- -------------------------------------------------------------------------------------------------------------- exchange
-- Executions that come from elsewhere: from applications, from pg_stat_statements, from standbys.
CREATE TABLE reported_stats (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reported_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    counted       jsonb NOT NULL,
    sample        jsonb
);
COMMENT ON TABLE reported_stats IS 'What log_query_stat() was told and the next flush moves to workload_stats; holds literals, so nobody but superusers may read it';
COMMENT ON COLUMN reported_stats.id IS 'Number of the report';
COMMENT ON COLUMN reported_stats.reported_at IS 'When it came';
COMMENT ON COLUMN reported_stats.counted IS 'The template and the figures';
COMMENT ON COLUMN reported_stats.sample IS 'The statement as it was run, to plan it again';

CREATE TABLE workload_imports (
    document_id   uuid PRIMARY KEY,
    imported_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
    exported_at   timestamptz NOT NULL,
    imported_by   name NOT NULL DEFAULT session_user,
    source        text NOT NULL,
    templates     bigint NOT NULL,
    calls         bigint NOT NULL
);
COMMENT ON TABLE workload_imports IS 'Documents of standbys that import_workload() has counted; none of them counts twice';
COMMENT ON COLUMN workload_imports.document_id IS 'Number that the document carries';
COMMENT ON COLUMN workload_imports.imported_at IS 'When it was counted';
COMMENT ON COLUMN workload_imports.exported_at IS 'When it was made';
COMMENT ON COLUMN workload_imports.imported_by IS 'Role that brought it';
COMMENT ON COLUMN workload_imports.source IS 'Server that made it';
COMMENT ON COLUMN workload_imports.templates IS 'Query templates in it';
COMMENT ON COLUMN workload_imports.calls IS 'Executions in it';

CREATE TABLE imported_statements (
    queryid       bigint NOT NULL,
    role_id       oid NOT NULL,
    nested        boolean NOT NULL,
    imported_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
    captured_gone bigint NOT NULL DEFAULT 0,
    imported_calls bigint NOT NULL DEFAULT 0,
    captured_before bigint NOT NULL DEFAULT 0,
    captured_calls bigint NOT NULL DEFAULT 0,
    calls         bigint NOT NULL DEFAULT 0,
    rows          bigint NOT NULL DEFAULT 0,
    total_ms      double precision NOT NULL DEFAULT 0,
    sum_squares_ms double precision NOT NULL DEFAULT 0,
    shared_blocks_hit bigint NOT NULL DEFAULT 0,
    shared_blocks_read bigint NOT NULL DEFAULT 0,
    temp_blocks   bigint NOT NULL DEFAULT 0,
    wal_bytes     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (queryid, role_id, nested)
);
COMMENT ON TABLE imported_statements IS 'How far pg_stat_statements had counted at the last import_pg_stat_statements(): the next one takes only what came since. It outlives the templates';
COMMENT ON COLUMN imported_statements.queryid IS 'Query identifier, as in pg_stat_statements';
COMMENT ON COLUMN imported_statements.role_id IS 'OID of the role that ran it';
COMMENT ON COLUMN imported_statements.nested IS 'It ran inside a function, procedure or trigger';
COMMENT ON COLUMN imported_statements.imported_at IS 'When it was last written';
COMMENT ON COLUMN imported_statements.captured_gone IS 'Executions that IndexPilot had captured in templates that are gone';
COMMENT ON COLUMN imported_statements.imported_calls IS 'Executions that were taken over since pg_stat_statements began to count';
COMMENT ON COLUMN imported_statements.captured_before IS 'Executions that IndexPilot had captured when pg_stat_statements began to count anew; 0 when it never did';
COMMENT ON COLUMN imported_statements.captured_calls IS 'Executions that IndexPilot had captured at the last import';
COMMENT ON COLUMN imported_statements.calls IS 'Executions that pg_stat_statements had counted by then';
COMMENT ON COLUMN imported_statements.rows IS 'Rows, likewise';
COMMENT ON COLUMN imported_statements.total_ms IS 'Execution time, milliseconds';
COMMENT ON COLUMN imported_statements.sum_squares_ms IS 'Sum of the squares of the execution times';
COMMENT ON COLUMN imported_statements.shared_blocks_hit IS 'Blocks found in shared buffers';
COMMENT ON COLUMN imported_statements.shared_blocks_read IS 'Blocks read into shared buffers';
COMMENT ON COLUMN imported_statements.temp_blocks IS 'Temporary blocks read and written';
COMMENT ON COLUMN imported_statements.wal_bytes IS 'Write-ahead log, bytes';

-- ---------------------------------------------------------------------------------------------------------------- select
CREATE TABLE analyses (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at   timestamptz,
    actor         name NOT NULL DEFAULT session_user,
    cause         text NOT NULL,
    queries       integer NOT NULL DEFAULT 0,
    unplannable   integer NOT NULL DEFAULT 0,
    candidates    integer NOT NULL DEFAULT 0,
    planner_calls bigint NOT NULL DEFAULT 0,
    method        text CHECK (method IN ('milp', 'greedy')),
    storage_budget_bytes bigint,
    cost_before   double precision,
    cost_after    double precision,
    gap           double precision
);
COMMENT ON TABLE analyses IS 'Each run of the chain workload, candidate, whatif, select, guard';
COMMENT ON COLUMN analyses.id IS 'Number of the run';
COMMENT ON COLUMN analyses.started_at IS 'Start';
COMMENT ON COLUMN analyses.finished_at IS 'End; NULL when it was interrupted';
COMMENT ON COLUMN analyses.actor IS 'Role that asked for it';
COMMENT ON COLUMN analyses.cause IS 'call (a function was called) or worker (indexpilot.mode = advise or apply)';
COMMENT ON COLUMN analyses.queries IS 'Templates that were planned';
COMMENT ON COLUMN analyses.unplannable IS 'Templates whose samples could not be planned again';
COMMENT ON COLUMN analyses.candidates IS 'Hypothetical indexes that were tried';
COMMENT ON COLUMN analyses.planner_calls IS 'Calls of the planner';
COMMENT ON COLUMN analyses.method IS 'milp (integer program) or greedy (fallback)';
COMMENT ON COLUMN analyses.storage_budget_bytes IS 'Storage budget, bytes';
COMMENT ON COLUMN analyses.cost_before IS 'Weighted planner cost of the workload with the indexes of that time';
COMMENT ON COLUMN analyses.cost_after IS 'The same with the chosen indexes, as the planner itself said';
COMMENT ON COLUMN analyses.gap IS 'Proven distance to the optimum of the integer program, as a share of it';

CREATE TABLE recommendations (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    analysis_id   bigint NOT NULL REFERENCES analyses ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    state         text NOT NULL CHECK (state IN ('proposed', 'approved', 'rejected', 'applied', 'not_recommended')),
    reason        text NOT NULL,
    reason_detail text NOT NULL,
    table_id      oid NOT NULL,
    table_schema  name NOT NULL,
    table_name    name NOT NULL,
    index_name    name,
    columns       name[] NOT NULL,
    definition    text NOT NULL,
    index_def     jsonb NOT NULL,
    estimated_bytes bigint NOT NULL DEFAULT 0,
    estimated_build_ms double precision,
    cost_before   double precision,
    cost_after    double precision,
    saved_ms_per_hour double precision,
    write_ms_per_hour double precision,
    workload_ids  bigint[] NOT NULL DEFAULT '{}',
    details       jsonb NOT NULL DEFAULT '{}',
    guard         jsonb NOT NULL DEFAULT '[]',
    decided_by    name,
    decided_at    timestamptz
);
CREATE INDEX recommendations_analysis ON recommendations (analysis_id);
CREATE INDEX recommendations_table ON recommendations (table_id);
COMMENT ON TABLE recommendations IS 'Every index that was considered: recommended ones, and with a reason those that were not';
COMMENT ON COLUMN recommendations.id IS 'Number of the decision, for explain_decision(), approve() and reject()';
COMMENT ON COLUMN recommendations.analysis_id IS 'Run that made it';
COMMENT ON COLUMN recommendations.created_at IS 'When it was made';
COMMENT ON COLUMN recommendations.state IS 'proposed, approved, rejected (by the person in decided_by, or by a guard rule where that is NULL), applied (an action exists), not_recommended';
COMMENT ON COLUMN recommendations.reason IS 'Reason code, such as gain, budget, rarely_used, not_expressed, no_gain, rejected_before (a person turned the same index down)';
COMMENT ON COLUMN recommendations.reason_detail IS 'The reason in words, with figures';
COMMENT ON COLUMN recommendations.table_id IS 'OID of the table';
COMMENT ON COLUMN recommendations.table_schema IS 'Schema of the table at that time';
COMMENT ON COLUMN recommendations.table_name IS 'Name of the table at that time';
COMMENT ON COLUMN recommendations.index_name IS 'Name that the index will have';
COMMENT ON COLUMN recommendations.columns IS 'Key columns';
COMMENT ON COLUMN recommendations.definition IS 'CREATE INDEX statement; on a partitioned table it stands for one on each partition, which the actions have';
COMMENT ON COLUMN recommendations.index_def IS 'The definition as a document, by attribute numbers';
COMMENT ON COLUMN recommendations.estimated_bytes IS 'Estimated size, bytes';
COMMENT ON COLUMN recommendations.estimated_build_ms IS 'Estimated time to build, milliseconds';
COMMENT ON COLUMN recommendations.cost_before IS 'Weighted planner cost of the cited queries without it';
COMMENT ON COLUMN recommendations.cost_after IS 'The same with the whole chosen set';
COMMENT ON COLUMN recommendations.saved_ms_per_hour IS 'Execution time it is expected to save per hour, from measured milliseconds per cost unit; NULL when nothing was measured';
COMMENT ON COLUMN recommendations.write_ms_per_hour IS 'Execution time it is expected to add to writes per hour';
COMMENT ON COLUMN recommendations.workload_ids IS 'Templates that use it';
COMMENT ON COLUMN recommendations.details IS 'Per query: cost before and after, and what else was weighed';
COMMENT ON COLUMN recommendations.guard IS 'Findings of the guard rules at that time';
COMMENT ON COLUMN recommendations.decided_by IS 'Role that approved, rejected or queued it; NULL when nobody did';
COMMENT ON COLUMN recommendations.decided_at IS 'When it was approved or rejected';

-- ----------------------------------------------------------------------------------------------------------------- apply
CREATE TABLE actions (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tag           uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid() UNIQUE,
    kind          text NOT NULL CHECK (kind IN ('create', 'drop', 'reindex')),
    state         text NOT NULL DEFAULT 'queued'
                  CHECK (state IN ('queued', 'observing', 'building', 'built', 'verifying', 'kept', 'reverted', 'done', 'failed', 'blocked', 'cancelled')),
    recommendation_id bigint REFERENCES recommendations ON DELETE SET NULL,
    reverts       bigint REFERENCES actions ON DELETE SET NULL,
    table_id      oid NOT NULL,
    table_schema  name NOT NULL,
    table_name    name NOT NULL,
    index_schema  name NOT NULL,
    index_name    name NOT NULL,
    index_id      oid,
    definition    text NOT NULL,
    statement     text NOT NULL,
    cause         text NOT NULL,
    actor         name NOT NULL DEFAULT session_user,
    attempts      integer NOT NULL DEFAULT 0,
    not_before    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    queued_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_at    timestamptz,
    finished_at   timestamptz,
    verified_at   timestamptz,
    worker_pid    integer,
    index_bytes   bigint,
    estimated_bytes bigint,
    blocked_reason text,
    error_sqlstate text,
    error_message text,
    guard         jsonb NOT NULL DEFAULT '[]',
    observe       boolean NOT NULL DEFAULT false
);
-- One live action per table: two concurrent builds on one table would wait for each other's snapshot.
CREATE UNIQUE INDEX actions_one_running_per_table ON actions (table_id) WHERE state = 'building';
CREATE UNIQUE INDEX actions_one_live_per_index ON actions (kind, index_schema, index_name) WHERE state IN ('queued', 'observing', 'building', 'blocked');
CREATE INDEX actions_state ON actions (state);
CREATE INDEX actions_recommendation ON actions (recommendation_id);
COMMENT ON TABLE actions IS 'What was, is and will be done to indexes; the intent is committed here before any DDL';
COMMENT ON COLUMN actions.id IS 'Number of the action, for cancel()';
COMMENT ON COLUMN actions.tag IS 'Tag that the index carries in its comment (indexpilot:<tag>), by which it is known after a rename, a rebuild or a restore';
COMMENT ON COLUMN actions.kind IS 'create, drop or reindex, always concurrently unless the caller asked otherwise';
COMMENT ON COLUMN actions.state IS 'queued, observing (a drop whose index is hidden first), building, built, verifying, kept, reverted, done (drop or reindex), failed, blocked, cancelled';
COMMENT ON COLUMN actions.recommendation_id IS 'Decision it carries out; on a partitioned table there is one action for each partition';
COMMENT ON COLUMN actions.reverts IS 'Action that it takes back';
COMMENT ON COLUMN actions.table_id IS 'OID of the table that was meant; the build is refused when the name leads elsewhere';
COMMENT ON COLUMN actions.table_schema IS 'Schema of the table when it was queued';
COMMENT ON COLUMN actions.table_name IS 'Name of the table when it was queued';
COMMENT ON COLUMN actions.index_schema IS 'Schema of the index';
COMMENT ON COLUMN actions.index_name IS 'Name of the index';
COMMENT ON COLUMN actions.index_id IS 'OID of the index when it was last looked up';
COMMENT ON COLUMN actions.definition IS 'CREATE INDEX statement of the index, for a drop the one that would bring it back';
COMMENT ON COLUMN actions.statement IS 'Statement that is run';
COMMENT ON COLUMN actions.cause IS 'Why: a recommendation, a rollback, a verdict';
COMMENT ON COLUMN actions.actor IS 'Role that asked for it';
COMMENT ON COLUMN actions.attempts IS 'How often it was started';
COMMENT ON COLUMN actions.not_before IS 'Not to be started earlier (back-off)';
COMMENT ON COLUMN actions.queued_at IS 'When it was queued';
COMMENT ON COLUMN actions.started_at IS 'When the last attempt began';
COMMENT ON COLUMN actions.finished_at IS 'When the DDL ended';
COMMENT ON COLUMN actions.verified_at IS 'When the verdict was given';
COMMENT ON COLUMN actions.worker_pid IS 'Process that runs it';
COMMENT ON COLUMN actions.index_bytes IS 'Size of the built index, bytes';
COMMENT ON COLUMN actions.estimated_bytes IS 'Estimated size, bytes';
COMMENT ON COLUMN actions.blocked_reason IS 'Guard rule or missing right that holds it back';
COMMENT ON COLUMN actions.error_sqlstate IS 'SQLSTATE of the last failure';
COMMENT ON COLUMN actions.error_message IS 'Message of the last failure';
COMMENT ON COLUMN actions.guard IS 'Findings of the guard rules when it was last looked at';
COMMENT ON COLUMN actions.observe IS 'Asked for by retire_index(): the index, which IndexPilot need not have made, is hidden for indexpilot.apply_observe before it is dropped';

CREATE TABLE managed_indexes (
    tag           uuid PRIMARY KEY,
    table_schema  name NOT NULL,
    table_name    name NOT NULL,
    index_schema  name NOT NULL,
    index_name    name NOT NULL,
    definition    text NOT NULL,
    action_id     bigint,
    created_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    dropped_at    timestamptz,
    drop_cause    text
);
COMMENT ON TABLE managed_indexes IS 'Indexes that IndexPilot made: the only ones it will ever drop by itself';
COMMENT ON COLUMN managed_indexes.tag IS 'Tag in the comment of the index';
COMMENT ON COLUMN managed_indexes.table_schema IS 'Schema of the table';
COMMENT ON COLUMN managed_indexes.table_name IS 'Name of the table';
COMMENT ON COLUMN managed_indexes.index_schema IS 'Schema of the index';
COMMENT ON COLUMN managed_indexes.index_name IS 'Name of the index';
COMMENT ON COLUMN managed_indexes.definition IS 'CREATE INDEX statement';
COMMENT ON COLUMN managed_indexes.action_id IS 'Action that built it';
COMMENT ON COLUMN managed_indexes.created_at IS 'When it was built';
COMMENT ON COLUMN managed_indexes.dropped_at IS 'When it was dropped; NULL while it lives';
COMMENT ON COLUMN managed_indexes.drop_cause IS 'Why it was dropped';

CREATE TABLE protected_indexes (
    index_schema  name NOT NULL,
    index_name    name NOT NULL,
    index_id      oid NOT NULL,
    protected_by  name NOT NULL DEFAULT session_user,
    protected_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (index_schema, index_name)
);
COMMENT ON TABLE protected_indexes IS 'Indexes that IndexPilot must never drop, rebuild or hide';
COMMENT ON COLUMN protected_indexes.index_schema IS 'Schema of the index';
COMMENT ON COLUMN protected_indexes.index_name IS 'Name of the index; a rebuilt or restored one of that name is protected too';
COMMENT ON COLUMN protected_indexes.index_id IS 'OID that it had; counts only while there is no index of that name, because it was renamed';
COMMENT ON COLUMN protected_indexes.protected_by IS 'Role that protected it';
COMMENT ON COLUMN protected_indexes.protected_at IS 'When it was protected';

-- ---------------------------------------------------------------------------------------------------------------- verify
CREATE TABLE verifications (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action_id     bigint NOT NULL REFERENCES actions ON DELETE CASCADE,
    judged_at     timestamptz NOT NULL DEFAULT pg_catalog.now(),
    verdict       text NOT NULL CHECK (verdict IN ('kept', 'neutral', 'reverted', 'pending')),
    reason        text NOT NULL,
    workload_id   bigint REFERENCES workload ON DELETE SET NULL,
    role          text NOT NULL CHECK (role IN ('cited', 'other', 'write', 'summary')),
    calls_before  bigint NOT NULL,
    calls_after   bigint NOT NULL,
    mean_ms_before double precision,
    mean_ms_after double precision,
    p95_ms_before double precision,
    p95_ms_after  double precision,
    change_ratio  double precision,
    p_value       double precision
);
CREATE INDEX verifications_action ON verifications (action_id);
-- A template that goes is looked for here.
CREATE INDEX verifications_workload ON verifications (workload_id);
COMMENT ON TABLE verifications IS 'What was measured before and after an index appeared, and the verdict';
COMMENT ON COLUMN verifications.id IS 'Number of the measurement';
COMMENT ON COLUMN verifications.action_id IS 'Action that is judged';
COMMENT ON COLUMN verifications.judged_at IS 'When it was judged';
COMMENT ON COLUMN verifications.verdict IS 'kept, neutral, reverted, or pending while there is too little to judge';
COMMENT ON COLUMN verifications.reason IS 'The verdict in words, with figures';
COMMENT ON COLUMN verifications.workload_id IS 'Template that was measured; NULL in the summary row';
COMMENT ON COLUMN verifications.role IS 'cited (the decision named it), other (a query on the same table), write, or summary';
COMMENT ON COLUMN verifications.calls_before IS 'Executions before';
COMMENT ON COLUMN verifications.calls_after IS 'Executions after';
COMMENT ON COLUMN verifications.mean_ms_before IS 'Mean time before, milliseconds';
COMMENT ON COLUMN verifications.mean_ms_after IS 'Mean time after, milliseconds';
COMMENT ON COLUMN verifications.p95_ms_before IS '95th percentile before, milliseconds';
COMMENT ON COLUMN verifications.p95_ms_after IS '95th percentile after, milliseconds';
COMMENT ON COLUMN verifications.change_ratio IS 'Mean after divided by mean before';
COMMENT ON COLUMN verifications.p_value IS 'Probability of such a difference by chance: the larger of Welch''s t-test and the Mann-Whitney test';

-- ------------------------------------------------------------------------------------------------------------------- log
CREATE TABLE mutation_log (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    logged_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    mutation      text NOT NULL,
    cause         text NOT NULL,
    actor         name NOT NULL DEFAULT session_user,
    table_schema  name,
    table_name    name,
    index_name    name,
    field_name    name,
    tenant_id     text,
    action_id     bigint,
    recommendation_id bigint,
    before        jsonb,
    after         jsonb,
    undo          text,
    undone_by     bigint,
    details       jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX mutation_log_logged ON mutation_log (logged_at);
CREATE INDEX mutation_log_action ON mutation_log (action_id);
COMMENT ON TABLE mutation_log IS 'What was changed, with the reason: indexes that were built, rebuilt, dropped, attached, hidden, shown or protected; verdicts; actions that failed, were held back, interrupted or cancelled; trials that somebody began or ended; rejected decisions; what tenants express; the switch of the database; capture_reset(); rollbacks; and what log_audit_event() was told. Decisions and approvals are in recommendations, queued actions in actions, imports in workload_imports. Rows are never changed but for undone_by, and never deleted';
COMMENT ON COLUMN mutation_log.id IS 'Number of the mutation, for rollback() and rollback_preview()';
COMMENT ON COLUMN mutation_log.logged_at IS 'When it happened';
COMMENT ON COLUMN mutation_log.mutation IS 'What happened: create_index, drop_index, reindex_index, enable_field, disable_field, action_failed, ...';
COMMENT ON COLUMN mutation_log.cause IS 'Why it happened';
COMMENT ON COLUMN mutation_log.actor IS 'Role that caused it, or indexpilot when no person did';
COMMENT ON COLUMN mutation_log.table_schema IS 'Schema of the table';
COMMENT ON COLUMN mutation_log.table_name IS 'Name of the table';
COMMENT ON COLUMN mutation_log.index_name IS 'Name of the index';
COMMENT ON COLUMN mutation_log.field_name IS 'Name of the field';
COMMENT ON COLUMN mutation_log.tenant_id IS 'Tenant';
COMMENT ON COLUMN mutation_log.action_id IS 'Action; a plain number, because the log outlives the actions';
COMMENT ON COLUMN mutation_log.recommendation_id IS 'Decision; a plain number, because the log outlives the decisions';
COMMENT ON COLUMN mutation_log.before IS 'State before';
COMMENT ON COLUMN mutation_log.after IS 'State after';
COMMENT ON COLUMN mutation_log.undo IS 'Statement that rollback() carries out; NULL when there is nothing to take back';
COMMENT ON COLUMN mutation_log.undone_by IS 'Mutation that took this one back';
COMMENT ON COLUMN mutation_log.details IS 'Further figures';

-- --------------------------------------------------------------------------------------------------------------- control
CREATE TABLE control (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last_cut_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_analysis_at timestamptz,
    templates_pruned bigint NOT NULL DEFAULT 0
);
INSERT INTO control DEFAULT VALUES;
COMMENT ON TABLE control IS 'Clocks and counters of the database: one row';
COMMENT ON COLUMN control.only_row IS 'Always true: there is one row';
COMMENT ON COLUMN control.last_cut_at IS 'When workload_stats last began a new span because an index appeared or went';
COMMENT ON COLUMN control.last_analysis_at IS 'When the worker last analysed the workload';
COMMENT ON COLUMN control.templates_pruned IS 'Query templates that were given up because there were more than indexpilot.capture_max_templates';

-- Apart from control, because it is dumped: a table that has a row from the start cannot be restored.
CREATE TABLE switch (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    disabled      boolean NOT NULL,
    disabled_reason text,
    changed_by    name NOT NULL DEFAULT session_user,
    changed_at    timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE switch IS 'The database''s own switch: one row once it was touched';
COMMENT ON COLUMN switch.only_row IS 'Always true: there is one row at most';
COMMENT ON COLUMN switch.disabled IS 'disable_system() was called: no action is started in this database';
COMMENT ON COLUMN switch.disabled_reason IS 'Why, as the caller said';
COMMENT ON COLUMN switch.changed_by IS 'Role that switched';
COMMENT ON COLUMN switch.changed_at IS 'When it was switched';

-- ----------------------------------------------------------------------------------------------------------------- dumps
SELECT pg_catalog.pg_extension_config_dump('genome_catalog', '');
SELECT pg_catalog.pg_extension_config_dump('genome_catalog_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('expression_profile', '');
SELECT pg_catalog.pg_extension_config_dump('managed_indexes', '');
SELECT pg_catalog.pg_extension_config_dump('protected_indexes', '');
SELECT pg_catalog.pg_extension_config_dump('switch', '');
SELECT pg_catalog.pg_extension_config_dump('mutation_log', '');
SELECT pg_catalog.pg_extension_config_dump('mutation_log_id_seq', '');
-- The log names actions and decisions, which are not dumped: their numbers must not be given again.
SELECT pg_catalog.pg_extension_config_dump('actions_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('recommendations_id_seq', '');
