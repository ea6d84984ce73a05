-- How far running actions are.

CREATE VIEW action_progress AS
SELECT a.id AS action_id, a.kind, a.table_schema, a.table_name, a.index_name, a.attempts, a.started_at,
       EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.started_at)::double precision AS running_s,
       a.worker_pid, p.phase, w.percent,
       CASE WHEN p.phase NOT LIKE 'waiting%' AND w.percent >= 5
            THEN EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.started_at)::double precision
                 * (100 - w.percent) / w.percent END AS remaining_s,
       NULLIF(p.current_locker_pid, 0)::integer AS waits_for
  FROM indexpilot.actions a
  LEFT JOIN pg_catalog.pg_stat_progress_create_index p ON p.pid = a.worker_pid AND p.datname = pg_catalog.current_database()
  LEFT JOIN LATERAL (
      -- A build reads the table twice, sorts, and writes the index; each phase has about this share of its time.
      SELECT CASE
          WHEN p.phase = 'initializing' THEN 0
          WHEN p.phase = 'waiting for writers before build' THEN 1
          WHEN p.phase LIKE 'building index: sorting%' THEN 45
          WHEN p.phase LIKE 'building index: loading%' THEN 50 + 15 * COALESCE(p.tuples_done::double precision / NULLIF(p.tuples_total, 0), 0)
          WHEN p.phase LIKE 'building index%' THEN 1 + 44 * COALESCE(p.blocks_done::double precision / NULLIF(p.blocks_total, 0), 0)
          WHEN p.phase = 'waiting for writers before validation' THEN 65
          WHEN p.phase = 'index validation: scanning index' THEN 65 + 10 * COALESCE(p.blocks_done::double precision / NULLIF(p.blocks_total, 0), 0)
          WHEN p.phase = 'index validation: sorting tuples' THEN 75
          WHEN p.phase = 'index validation: scanning table' THEN 77 + 18 * COALESCE(p.blocks_done::double precision / NULLIF(p.blocks_total, 0), 0)
          WHEN p.phase = 'waiting for old snapshots' THEN 96
          WHEN p.phase = 'waiting for readers before marking dead' THEN 98
          WHEN p.phase = 'waiting for readers before dropping' THEN 99
      END::double precision AS percent) w ON true
 WHERE a.state = 'building';
COMMENT ON VIEW action_progress IS 'Actions that run, with how far they are; the figures are for members of pg_read_all_stats (as pg_monitor is), and only builds and rebuilds have them';
COMMENT ON COLUMN action_progress.action_id IS 'Number of the action, for cancel()';
COMMENT ON COLUMN action_progress.kind IS 'create, drop or reindex';
COMMENT ON COLUMN action_progress.table_schema IS 'Schema of the table';
COMMENT ON COLUMN action_progress.table_name IS 'Name of the table';
COMMENT ON COLUMN action_progress.index_name IS 'Name of the index';
COMMENT ON COLUMN action_progress.attempts IS 'Which attempt it is';
COMMENT ON COLUMN action_progress.started_at IS 'When this attempt began';
COMMENT ON COLUMN action_progress.running_s IS 'How long it has been running, seconds';
COMMENT ON COLUMN action_progress.worker_pid IS 'Process that runs it';
COMMENT ON COLUMN action_progress.phase IS 'What it does just now, as in pg_stat_progress_create_index';
COMMENT ON COLUMN action_progress.percent IS 'How much is done, 0 to 100: the share of the phases before, and of this one as far as the server tells';
COMMENT ON COLUMN action_progress.remaining_s IS 'How long it will take if it goes on as fast, seconds; NULL at the beginning, and while it waits for others';
COMMENT ON COLUMN action_progress.waits_for IS 'Process whose transaction it waits for';

GRANT SELECT ON action_progress TO pg_monitor;
