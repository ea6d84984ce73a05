-- What the guard did: how often each rule was asked and what it held back.

CREATE TABLE guard_metrics (
    rule          text PRIMARY KEY,
    evaluated     bigint NOT NULL DEFAULT 0,
    waited        bigint NOT NULL DEFAULT 0,
    refused       bigint NOT NULL DEFAULT 0,
    stopped       bigint NOT NULL DEFAULT 0,
    breached_at   timestamptz,
    objected_at   timestamptz,
    action_id     bigint,
    detail        text
) WITH (fillfactor = 50);
COMMENT ON TABLE guard_metrics IS 'What each guard rule did in this database since the extension was installed';
COMMENT ON COLUMN guard_metrics.rule IS 'Code of the rule, as in actions.guard';
COMMENT ON COLUMN guard_metrics.evaluated IS 'How often an action was looked at';
COMMENT ON COLUMN guard_metrics.waited IS 'How often it made an action wait; one that waits for long is looked at several times';
COMMENT ON COLUMN guard_metrics.refused IS 'How often it refused an action';
COMMENT ON COLUMN guard_metrics.stopped IS 'How often it stopped an action that was running';
COMMENT ON COLUMN guard_metrics.breached_at IS 'When the figure itself was last beyond its limit, for rules with a cool-down (load)';
COMMENT ON COLUMN guard_metrics.objected_at IS 'When it last made an action wait, refused one or stopped one';
COMMENT ON COLUMN guard_metrics.action_id IS 'Which action that was; a plain number, because the figures outlive the actions';
COMMENT ON COLUMN guard_metrics.detail IS 'Why, with figures';

CREATE TABLE guard_stops (
    action_id     bigint NOT NULL REFERENCES actions ON DELETE CASCADE,
    attempt       integer NOT NULL,
    rule          text NOT NULL,
    detail        text NOT NULL,
    stopped_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (action_id, attempt)
);
COMMENT ON TABLE guard_stops IS 'Running actions that a guard rule had interrupted; they are queued again, and the attempt does not count';
COMMENT ON COLUMN guard_stops.action_id IS 'Action';
COMMENT ON COLUMN guard_stops.attempt IS 'Which of its attempts';
COMMENT ON COLUMN guard_stops.rule IS 'Code of the rule';
COMMENT ON COLUMN guard_stops.detail IS 'Why, with figures';
COMMENT ON COLUMN guard_stops.stopped_at IS 'When the interruption was asked for';

GRANT SELECT ON guard_metrics, guard_stops TO pg_monitor;
