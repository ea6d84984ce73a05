#!/bin/bash
# Capture on a throw-away cluster: exact counts in every protocol mode, errors, nesting, cursors, crash, chains of hooks, a full table.
# Usage: cluster.sh PG_BIN_DIR WORK_DIR    (the extension installed there with the feature pg_test; as root, initdb and pg_ctl switch user)
set -u
B=$1; W=$2; D=$W/data; S=$W/s; mkdir -p "$W" "$S"; chmod 777 "$S"
fails=0
ok() { if [ "$2" = "$3" ]; then echo "ok   $1: $2"; else echo "FAIL $1: got $2, wanted $3"; fails=$((fails + 1)); fi; }
q() { psql -h "$S" -d postgres -XqAt -v ON_ERROR_STOP=0 -c "$1" 2>&1; }
qf() { psql -h "$S" -d postgres -XqAt 2>&1; }
start() { # preload libraries, further settings
    cat > "$D/postgresql.auto.conf" <<CONF
shared_preload_libraries = '$1'
listen_addresses = ''
unix_socket_directories = '$S'
fsync = off
max_connections = 40
restart_after_crash = on
$2
CONF
    chown postgres "$D/postgresql.auto.conf" 2>/dev/null
    "$B/pg_ctl" -D "$D" -m fast stop > "$W/ctl" 2>&1
    "$B/pg_ctl" -D "$D" -l "$W/log" -w start >> "$W/ctl" 2>&1 || { echo "FAIL start with $1"; tail -5 "$W/log"; exit 1; }
}
register() { q "SELECT capture_test.register()" > /dev/null; q "SELECT capture_test.clear()" > /dev/null; }
# calls (or another field) of all templates whose relations include t
sum() { q "SELECT coalesce(sum((s->>'$1')::bigint), 0) FROM capture_test.stats() s WHERE ${2:-true}"; }

"$B/pg_ctl" -D "$D" -m immediate stop > /dev/null 2>&1; rm -rf "$D" "$W/log"
"$B/initdb" -D "$D" > /dev/null || exit 1
start indexpilot ""
q "CREATE EXTENSION indexpilot"; q "CREATE TABLE t(id int PRIMARY KEY, v int); INSERT INTO t SELECT g, g FROM generate_series(1, 10000) g; ANALYZE t"
pgbench -h "$S" -i -q -s 1 postgres > /dev/null 2>&1
A=$(q "SELECT 'pgbench_accounts'::regclass::oid"); T=$(q "SELECT 't'::regclass::oid")
on_a="s->'relations' @> '[$A]'"; on_t="s->'relations' @> '[$T]'"
ok "not captured before registration" "$(q 'SELECT v FROM t WHERE id = 1' > /dev/null; sum calls "$on_t")" 0

for mode in simple extended prepared; do
    register
    pgbench -h "$S" -n -S -M $mode -t 2500 -c 4 -j 2 postgres > /dev/null 2>&1
    ok "pgbench -S -M $mode" "$(sum calls "$on_a")" 10000
done
register; pgbench -h "$S" -n -S -M prepared -t 1000 -c 1 postgres > /dev/null 2>&1
ok "rows, histogram, one entry" "$(q "SELECT string_agg(format('%s %s %s', s->>'rows', s->>'histogram', s->>'command'), ',') FROM capture_test.stats() s WHERE $on_a")" "1000 1000 select"
register; pgbench -h "$S" -n -t 500 -c 4 postgres > /dev/null 2>&1
ok "pgbench TPC-B updates of accounts" "$(sum calls "$on_a and s->>'command' = 'update'")" 2000
ok "and WAL" "$(register; q 'UPDATE t SET v = v WHERE id < 100' > /dev/null; q "SELECT (s->>'wal')::int > 0 FROM capture_test.stats() s WHERE $on_t")" t

register; q "SELECT 1/(v - v) FROM t WHERE id = 5" > /dev/null; ok "division by zero" "$(q "SELECT format('%s %s', s->>'calls', s->>'errors') FROM capture_test.stats() s WHERE $on_t")" "0 1"
register; q "SET statement_timeout = 50; SELECT count(pg_sleep(1)) FROM t WHERE id < 5" > /dev/null; ok "timeout" "$(q "SELECT format('%s %s %s', s->>'calls', s->>'errors', (s->>'error_ms')::float between 20 and 500) FROM capture_test.stats() s WHERE $on_t")" "0 1 t"
register; qf <<SQL > /dev/null
BEGIN; SELECT v FROM t WHERE id = 1; SAVEPOINT a; SELECT 1/(v - v) FROM t WHERE id = 6; ROLLBACK TO a; SELECT v FROM t WHERE id = 2; COMMIT;
SQL
ok "savepoint" "$(q "SELECT string_agg(format('%s/%s', s->>'calls', s->>'errors'), ' ' ORDER BY s->>'calls') FROM capture_test.stats() s WHERE $on_t")" "0/1 2/0"

q "CREATE OR REPLACE FUNCTION f(n int) RETURNS int LANGUAGE plpgsql AS \$\$ DECLARE x int; y int := 0; BEGIN FOR i IN 1..n LOOP BEGIN SELECT v INTO x FROM t WHERE id = i; y := y + 1/(x % 2); EXCEPTION WHEN division_by_zero THEN y := y + 1; END; END LOOP; RETURN y; END \$\$"
register; qf <<SQL > /dev/null
SELECT f(1000), (SELECT max(v) FROM t WHERE id = 1);
DO \$\$ BEGIN PERFORM v FROM t WHERE id = 3; END \$\$;
SELECT v FROM t WHERE id = 1;
SQL
ok "plpgsql with 500 caught errors, DO" "$(q "SELECT string_agg(format('%s/%s', s->>'calls', s->>'errors'), ' ') FROM capture_test.stats() s WHERE $on_t")" "1/0 1/0"
q "CREATE OR REPLACE PROCEDURE p() LANGUAGE plpgsql AS \$\$ BEGIN FOR i IN 1..5 LOOP UPDATE t SET v = v WHERE id = i; IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF; END LOOP; END \$\$"
register; qf <<SQL > /dev/null
CALL p();
SELECT v FROM t WHERE id = 1;
SQL
ok "CALL with COMMIT and ROLLBACK" "$(sum calls "$on_t")" 1
register; qf <<SQL > /dev/null
PREPARE pp(int) AS SELECT v FROM t WHERE id = \$1; EXECUTE pp(1); EXECUTE pp(2); EXECUTE pp(3); EXPLAIN SELECT v FROM t WHERE id = 9; EXPLAIN ANALYZE SELECT v FROM t WHERE id = 9; EXPLAIN EXECUTE pp(3);
SQL
ok "EXECUTE counts its query, EXPLAIN nothing" "$(q "SELECT string_agg(format('%s', s->>'calls'), ' ') FROM capture_test.stats() s WHERE $on_t")" "3"
register; q "COPY (SELECT v FROM t WHERE id < 10) TO STDOUT" > /dev/null; ok "COPY (query)" "$(sum calls "$on_t")" 1
q "CREATE OR REPLACE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN PERFORM v FROM t WHERE id = new.id - 100; RETURN new; END \$\$; CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trg(); "
register; q "UPDATE t SET v = v WHERE id = 500" > /dev/null; ok "deferred triggers" "$(q "SELECT string_agg(s->>'command' || (s->>'calls'), ' ') FROM capture_test.stats() s WHERE $on_t")" "update1"
q "DROP TRIGGER late ON t"
python3 "$(dirname "$0")/portal.py" "$S/.s.PGSQL.5432" "${USER:-root}" > "$W/portal" 2>&1 < /dev/null &
register; wait $!; register
python3 "$(dirname "$0")/portal.py" "$S/.s.PGSQL.5432" "${USER:-root}" > "$W/portal" 2>&1
ok "portal fetched ten times" "$(q "SELECT format('%s %s', s->>'calls', s->>'rows') FROM capture_test.stats() s WHERE $on_t")" "1 95"
ok "its parameter" "$(q "SELECT s->>'parameters' FROM capture_test.samples() s WHERE s->>'text' like '%id <= %'" | head -1)" '[{"type": 23, "known": true, "value": "95"}]'
register; pgbench -h "$S" -n -S -M prepared -t 10000 -c 4 -j 2 postgres > /dev/null 2>&1 & P=$!; n=0
while kill -0 $P 2> /dev/null; do n=$((n + $(sum calls "$on_a"))); done; wait $P
ok "nothing lost between takes" $((n + $(sum calls "$on_a"))) 40000
ok "tests inside the server" "$(for t in statements_of_functions_are_not_counted suspension_ends_with_its_guard values_are_printed_as_their_types_read_them; do q "SELECT tests.$t()"; done)" ""
register; q "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET force_parallel_mode = on; SELECT count(*) FROM t" > /dev/null
ok "parallel query" "$(sum calls "$on_t")" 1
register; q "SET indexpilot.capture = off; SELECT v FROM t WHERE id = 1; SET indexpilot.capture = on; SELECT v, 1 FROM t WHERE id = 1" > /dev/null; ok "capture off" "$(sum calls "$on_t")" 1
register; qf <<SQL > /dev/null
SET indexpilot.tenant_id = 'acme'; SELECT v FROM t WHERE id = 1; SELECT v FROM t WHERE id = 2; SET indexpilot.tenant_id = 'äther'; SELECT v FROM t WHERE id = 2; RESET indexpilot.tenant_id; SELECT v FROM t WHERE id = 2;
SQL
ok "tenants" "$(q "SELECT string_agg(format('%s=%s', s->>'tenant', s->>'calls'), ' ' ORDER BY s->>'tenant') FROM capture_test.stats() s WHERE $on_t")" "=1 acme=2 äther=1"
q "CREATE TABLE part(id int, v int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF part FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF part FOR VALUES FROM (10) TO (20)"
P=$(q "SELECT 'part'::regclass::oid")
register; q "SELECT v FROM part WHERE id = 1; SELECT v FROM part WHERE id = 11; SELECT v FROM part WHERE id = 99" > /dev/null
ok "partitions count as their parent" "$(q "SELECT string_agg(format('%s %s', s->>'calls', s->'relations'), ';') FROM capture_test.stats() s WHERE s->'relations' @> '[$P]'")" "3 [$P]"
register; q "SELECT count(*) FROM pg_class" > /dev/null; ok "catalogs alone" "$(q "SELECT count(*) FROM capture_test.stats() s WHERE s->>'relations' = '[]' AND s->>'rows' = '1' AND (s->>'hit')::int > 5")" 0
ok "SELECT without relations" "$(register; q "SELECT 42 AS x, 43" > /dev/null; q "SELECT count(*) > 0 FROM capture_test.stats() s")" t

register; q "SELECT capture_test.samples()" > /dev/null; qf <<SQL > /dev/null
SET search_path = public, pg_catalog; /* lead */ SELECT v FROM t WHERE id = 77 ; SELECT v + 1 FROM t WHERE id = 78;
SQL
ok "sample texts" "$(q "SELECT string_agg(format('%s|%s', s->>'text', s->>'search_path'), ' & ' ORDER BY s->>'text' DESC) FROM capture_test.samples() s WHERE $on_t")" 'SELECT v + 1 FROM t WHERE id = 78|public, pg_catalog & /* lead */ SELECT v FROM t WHERE id = 77|public, pg_catalog'
register; q "SELECT length('$(printf 'x%.0s' $(seq 1 20000))'), v FROM t WHERE id = 1" > /dev/null; ok "too long" "$(q "SELECT value > 0 FROM capture_test.status() WHERE name = 'samples_too_long'")" t
ok "capture code never failed" "$(q "SELECT sum(value) FROM capture_test.status() WHERE name IN ('failures', 'untracked', 'dropped')")" 0

echo "-- errors reach the client unchanged"
cat > "$W/err.sql" <<'SQL'
\set VERBOSITY verbose
SELECT nosuch FROM t;
CREATE TABLE x(a nosuchtype);
INSERT INTO t VALUES (1, 1);
DO $$ BEGIN PERFORM 1/0; END $$;
SELECT v::text::date FROM t WHERE id = 1;
SELECT f(1), 1/0;
CALL nosuch();
SQL
psql -h "$S" -d postgres -Xq -f "$W/err.sql" > "$W/err.with" 2>&1
start "" ""; psql -h "$S" -d postgres -Xq -f "$W/err.sql" > "$W/err.without" 2>&1
ok "messages with and without" "$(diff "$W/err.with" "$W/err.without" > "$W/err.diff" && echo same)" same

ok "LOAD without preload" "$(q "LOAD 'indexpilot'; SELECT count(*) FROM capture_test.status()")" 0
for order in indexpilot,pg_stat_statements,auto_explain auto_explain,pg_stat_statements,indexpilot; do
    start "$order" "auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
pg_stat_statements.track = top"
    q "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"; register; q "SELECT pg_stat_statements_reset()" > /dev/null; q "SELECT capture_test.clear()" > /dev/null
    pgbench -h "$S" -n -S -M prepared -t 1000 -c 2 postgres > /dev/null 2>&1
    ok "with $order" "$(q "SELECT calls FROM pg_stat_statements WHERE query LIKE 'SELECT abalance%'") $(q "SELECT format('%s %s', s->>'calls', s->>'rows') FROM capture_test.stats() s WHERE $on_a")" "2000 2000 2000"
    register; pgbench -h "$S" -n -S -t 10 postgres > /dev/null 2>&1
    ok "same queryid" "$(q "SELECT count(*) FROM capture_test.stats() s JOIN pg_stat_statements p ON p.queryid = (s->>'queryid')::bigint WHERE $on_a")" 1
done
start indexpilot "compute_query_id = off"; register; q "SELECT v FROM t WHERE id = 1" > /dev/null
ok "compute_query_id = off" "$(sum calls "$on_t") $(q "SELECT value > 0 FROM capture_test.status() WHERE name = 'without_queryid'")" "0 t"
start indexpilot "indexpilot.startup_bypass = on"; ok "startup_bypass" "$(q "SELECT count(*) FROM capture_test.status()")" 0

start indexpilot "indexpilot.capture_max_queries = 100
indexpilot.capture_max_samples = 8"; register
python3 - <<'PY' > "$W/many.sql"
for i in range(100000):
    print(f"SELECT v AS c{i} FROM t WHERE id = {i % 9000 + 1} ORDER BY " + ", ".join(["1"] * (i % 7 + 1)) + f" LIMIT {i % 5 + 1} OFFSET {i};" if i < 0 else "SELECT v" + "".join(f", {'id' if (i >> b) & 1 else 'v'}" for b in range(17)) + " FROM t WHERE id = 1;")
PY
time psql -h "$S" -d postgres -XqAt -f "$W/many.sql" > /dev/null 2>&1
ok "100 000 templates, room for 100" "$(q "SELECT max(value) FILTER (WHERE name = 'entries'), max(value) FILTER (WHERE name = 'dropped') > 99000, max(value) FILTER (WHERE name = 'failures') FROM capture_test.status()")" "100|t|0"
for i in 1 2 3; do q "SELECT count(*) FROM capture_test.stats()" > /dev/null; done
ok "eviction makes room" "$(q "SELECT max(value) FILTER (WHERE name = 'evicted') >= 90 FROM capture_test.status()")" t
q "SELECT v, id, v, id FROM t WHERE id = 4" > /dev/null; ok "and new templates are counted" "$(sum calls "$on_t")" 1

start indexpilot ""; register; E=$(q "SELECT value FROM capture_test.status() WHERE name = 'epoch_us'")
pgbench -h "$S" -n -S -T 6 -c 4 postgres > /dev/null 2>&1 & sleep 1
for i in 1 2 3 4 5; do pid=$(q "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' LIMIT 1"); [ -n "$pid" ] && q "SELECT pg_terminate_backend($pid)" > /dev/null; sleep 0.2; done
pgbench -h "$S" -n -S -T 4 -c 4 postgres > /dev/null 2>&1 & sleep 1
kill -9 "$(q "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' LIMIT 1")"; sleep 4
ok "after kill -9: fresh memory" "$(q "SELECT value <> $E FROM capture_test.status() WHERE name = 'epoch_us'") $(register; pgbench -h "$S" -n -S -t 100 postgres > /dev/null 2>&1; sum calls "$on_a")" "t 100"
wait
"$B/pg_ctl" -D "$D" -m fast stop > /dev/null
ok "no crash but the one asked for" "$(grep -c 'terminated by signal' "$W/log")" 1
echo "$fails failures"; exit $((fails > 0))
