-- Every object is commented, PUBLIC may execute nothing, every setting is described.
SELECT c.relname, c.relkind FROM pg_class c
 WHERE c.relnamespace = 'indexpilot'::regnamespace AND c.relkind IN ('r', 'v') ORDER BY c.relname COLLATE "C";
SELECT c.relname AS uncommented FROM pg_class c
 WHERE c.relnamespace = 'indexpilot'::regnamespace AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL;
SELECT c.relname, a.attname AS uncommented FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'indexpilot'::regnamespace AND c.relkind IN ('r', 'v') AND col_description(c.oid, a.attnum) IS NULL;
-- templates and decisions go by the thousand, and each is looked for in the tables that refer to it: they have an index for that
SELECT f.conrelid::regclass AS unindexed, f.conname FROM pg_constraint f
 WHERE f.contype = 'f' AND f.connamespace = 'indexpilot'::regnamespace
   AND f.confrelid IN ('indexpilot.workload'::regclass, 'indexpilot.analyses'::regclass, 'indexpilot.recommendations'::regclass)
   AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = f.conrelid AND (i.indkey::int2[])[0:cardinality(f.conkey) - 1] = f.conkey);
SELECT p.proname, p.prokind, pg_get_function_identity_arguments(p.oid) AS arguments FROM pg_proc p
 WHERE p.pronamespace = 'indexpilot'::regnamespace ORDER BY p.proname COLLATE "C", pg_get_function_identity_arguments(p.oid) COLLATE "C";
SELECT p.proname AS uncommented FROM pg_proc p WHERE p.pronamespace = 'indexpilot'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL;
SELECT p.proname AS public_may_execute FROM pg_proc p, aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) a
 WHERE p.pronamespace = 'indexpilot'::regnamespace AND a.grantee = 0;
SELECT name, setting, unit, vartype, context FROM pg_settings WHERE name LIKE 'indexpilot.%' AND name NOT IN ('indexpilot.worker_interval', 'indexpilot.verify_delay', 'indexpilot.capture_bucket') ORDER BY name COLLATE "C";
SELECT name AS undescribed FROM pg_settings WHERE name LIKE 'indexpilot.%' AND (length(short_desc) < 10 OR extra_desc IS NULL);
-- the prefix is reserved
SET indexpilot.no_such_setting = 1;
\echo :LAST_ERROR_SQLSTATE
