-- The guard's settings say at once what they cannot be.
\set VERBOSITY default
ALTER SYSTEM SET indexpilot.guard_window_start = '25:00';
\echo :LAST_ERROR_SQLSTATE
ALTER SYSTEM SET indexpilot.guard_window_end = 'noon';
ALTER SYSTEM SET indexpilot.guard_window_days = 'mon-frida';
ALTER SYSTEM SET indexpilot.guard_window_timezone = 'Europe/Atlantis';
ALTER SYSTEM SET indexpilot.guard_max_index_share = -1;
SET indexpilot.guard_max_load = 1;
\echo :LAST_ERROR_SQLSTATE
