#!/bin/bash
# regress-core.sh: PostgreSQL's own regression and isolation suites, first on the unmodified server, then with IndexPilot preloaded, its
# extension created and all of capture on. Fails when a test ends otherwise, or prints otherwise, than on the unmodified server.
# The tests come with the distribution's source package, or from the tarball that PG_SOURCE names. SUITES="regress isolation" chooses;
# ORDERS=1 then also tries all load orders beside pg_stat_statements, auto_explain and pg_qualstats (tests/cluster/orders.rs).
. "$(dirname "$0")/env.sh"
. tools/cluster.sh
. tools/packages.sh

suites=${SUITES:-regress isolation}
work=$(reachable core)
pgxs=$prefix/usr/lib/postgresql/$pg_major/lib/pgxs/src/test
server_version=$("$pg_bin/pg_config" --version | sed -E 's/^PostgreSQL ([^ ]+).*/\1/')
trap 'for dir in "$CARGO_TARGET_DIR"/cluster/core-*-$$; do [ ! -d "$dir" ] || cluster_remove "$dir"; done' EXIT

# As the server's user: the tests write files that the server reads, and the other way round.
as_server() { if is_root; then runuser -u postgres -- "$@"; else "$@"; fi; }

env -u PG_CONFIG tools/install.sh --release

# ------------------------------------------------------------------------------------------------------------------------ sources
# The tests of another minor version do as well, because both servers run the same ones.
tarball=${PG_SOURCE:-}
if [ -z "$tarball" ]; then source_package "$work/package" "postgresql-$pg_major" "$server_version"; fi
[ -f "$tarball" ] || die "there is no $tarball"

# A fresh copy for every run: what the unmodified server prints is written over what the tests expect.
say "tests of $(basename "$tarball"), PostgreSQL $server_version"
source=$work/source
rm -rf "$source" && mkdir -p "$source/lib"
tar -xf "$tarball" -C "$source" --strip-components=1 --wildcards '*/src/test/regress' '*/src/test/isolation' '*/contrib/spi'
headers=$("$private_pg_config" --includedir-server)
library() { cc -O2 -fPIC -shared -w -DREFINT_VERBOSE -I"$headers" -I"$source/contrib/spi" "$1" -o "$source/lib/$(basename "$1" .c).so"; }
library "$source/src/test/regress/regress.c"
library "$source/contrib/spi/autoinc.c"
library "$source/contrib/spi/refint.c"
if is_root; then chown -R postgres "$source"; fi

# --------------------------------------------------------------------------------------------------------------------------- runs
database() { case $1 in regress) echo regression ;; isolation) echo isolation_regression ;; *) die "there is no suite $1" ;; esac; }

query() { "$pg_bin/psql" -qXAt -v ON_ERROR_STOP=1 -F ' ' -h "$socket" -U postgres -d "$1" -c "$2"; }

# As pg_regress would make it. The extension is made before the tests start, and they wait for the visit of the worker that follows:
# capture sees their first statement, and no snapshot keeps their first VACUUM from marking all rows visible, as autovacuum may do, too.
create_database() { # NAME PRELOAD
  local name=$1 setting deadline=$((SECONDS + 60))
  query postgres "CREATE DATABASE $name TEMPLATE template0"
  for setting in "lc_messages TO 'C'" "lc_monetary TO 'C'" "lc_numeric TO 'C'" "lc_time TO 'C'" "bytea_output TO 'hex'" \
    "timezone_abbreviations TO 'Default'"; do
    query postgres "ALTER DATABASE $name SET $setting"
  done
  [ -n "$2" ] || return 0
  query "$name" 'CREATE EXTENSION indexpilot'
  until [ "$(query "$name" "SELECT EXISTS (SELECT FROM indexpilot.queries) AND NOT EXISTS (SELECT FROM pg_stat_activity
    WHERE backend_type = 'indexpilot worker')")" = t ]; do
    [ $SECONDS -lt $deadline ] || die "the database $name is not captured"
    query "$name" "CREATE TABLE captured (); TABLE captured; DROP TABLE captured; SELECT indexpilot.capture_flush()" >/dev/null
  done
}

# NAME PRELOAD: runs the suites on a server of their own; results in $work/NAME.
run() {
  local name=$1 preload=$2 suite dir=$work/$1 data status start
  data=$(reachable cluster)/core-$name-$$
  cat tools/regress-core.conf >"$work/$name.conf"
  echo "shared_preload_libraries = '$preload'" >>"$work/$name.conf"
  cluster_start "$data" postgres "$work/$name.conf"
  rm -rf "$dir" && mkdir -p "$dir/regress" "$dir/isolation"
  if is_root; then chown -R postgres "$dir"; fi
  for suite in $suites; do
    local options=(--bindir="$pg_bin" --host="$socket" --port=5432 --user=postgres --inputdir="$source/src/test/$suite"
      --outputdir="$dir/$suite" --use-existing --dbname="$(database "$suite")")
    case $suite in
      regress) options+=(--dlpath="$source/lib" --max-concurrent-tests=20 --schedule="$source/src/test/regress/parallel_schedule") ;;
      isolation) options+=(--schedule="$source/src/test/isolation/isolation_schedule") ;;
    esac
    say "$suite, $name"
    create_database "$(database "$suite")" "$preload"
    start=$SECONDS status=0
    (cd "$dir/$suite" && as_server "$pgxs/$suite/pg_${suite/#isolation/isolation_regress}" "${options[@]}") >"$dir/$suite.log" 2>&1 || status=$?
    outcomes "$dir/$suite.log" >"$dir/$suite.outcomes"
    echo $((SECONDS - start)) >"$dir/$suite.seconds"
    [ -s "$dir/$suite.outcomes" ] || { tail -20 "$dir/$suite.log" >&2; die "no test ran (status $status)"; }
  done
}

# The lines of pg_regress up to 15 and from 16 on, as "test ok" and "test failed".
outcomes() {
  sed -nE 's/^(test|    ) +([^ ]+) +\.\.\. (ok|FAILED|failed).*/\2 \3/p; s/^(ok|not ok) +[0-9]+ +[-+] +([^ ]+) .*/\2 \1/p' "$1" |
    awk '{ print $1, $2 == "ok" ? "ok" : "failed" }' | sort
}

# What the unmodified server prints in tests that fail there (a newer minor version than the tests', other ICU data) is what it should.
accept() {
  local suite test
  for suite in $suites; do
    for test in $(sed -n 's/ failed$//p' "$work/unmodified/$suite.outcomes"); do
      rm -f "$source/src/test/$suite/expected/$test"_[0-9].out
      cp "$work/unmodified/$suite/results/$test.out" "$source/src/test/$suite/expected/$test.out"
    done
  done
}

# Was all that captured? Without calls, the comparison would show nothing.
captured() {
  local suite database templates calls errors failures
  for suite in $suites; do
    database=$(database "$suite")
    query "$database" 'SELECT indexpilot.capture_flush()' >/dev/null
    read -r templates calls errors <<<"$(query "$database" \
      'SELECT count(*), coalesce(sum(calls), 0)::bigint, coalesce(sum(errors), 0)::bigint FROM indexpilot.queries')"
    failures=$(query "$database" "SELECT value FROM indexpilot.status WHERE name = 'capture_failures'")
    printf '%-12s captured: %s templates, %s calls, %s errors; failures inside capture: %s\n' "$suite" "$templates" "$calls" "$errors" "$failures"
    [ "$calls" -ge 1000 ] && [ "$failures" = 0 ] || wrong=1
  done
}

# The server's own messages of the run: none of them may be about a crash.
crashes() { grep -cE 'was terminated by signal|PANIC:|server process .* exited with exit code' "$CARGO_TARGET_DIR/cluster/core-$1-$$/server.log" || true; }

# The names of the tests of a suite that fulfil a condition on $test.
tests_where() { # SUITE COMMAND...
  local suite=$1 test
  shift
  for test in $(cut -d' ' -f1 "$work/unmodified/$suite.outcomes"); do if "$@" "$suite" "$test"; then echo "$test"; fi; done
}
outcome() { sed -n "s/^$3 //p" "$work/$1/$2.outcomes"; }
failed_before() { [ "$(outcome unmodified "$1" "$2")" = failed ]; }
ends_otherwise() { [ "$(outcome indexpilot "$1" "$2")" != ok ]; } # what the unmodified server prints is what is expected by now
prints_otherwise() { ! cmp -s "$work/unmodified/$1/results/$2.out" "$work/indexpilot/$1/results/$2.out"; }

compare() {
  local suite differ other before
  printf '\n%-10s %6s %20s %20s %8s\n' '' tests 'unmodified' 'indexpilot' 'differ'
  for suite in $suites; do
    differ=$(tests_where "$suite" ends_otherwise) other=$(tests_where "$suite" prints_otherwise) before=$(tests_where "$suite" failed_before)
    printf '%-10s %6s %20s %20s %8s\n' "$suite" "$(wc -l <"$work/unmodified/$suite.outcomes")" \
      "$(wc -l <"$work/unmodified/$suite.outcomes") in $(cat "$work/unmodified/$suite.seconds") s" \
      "$(grep -c ' ok$' "$work/indexpilot/$suite.outcomes") in $(cat "$work/indexpilot/$suite.seconds") s" "$(wc -w <<<"$differ")"
    if [ -n "$before" ]; then echo "  the tests expect something else of both servers, which print the same:" $before; fi
    other=$(comm -23 <(sort <<<"$other") <(sort <<<"$differ"))
    if [ -n "$other" ]; then echo "  passed with another of the outputs that the test allows:" $other; fi
    if [ -n "$differ" ]; then
      wrong=1
      echo "  DIFFER:" $differ
      cat "$work/indexpilot/$suite/regression.diffs"
    fi
  done
}

wrong=0
run unmodified ''
cluster_stop "$CARGO_TARGET_DIR/cluster/core-unmodified-$$"
accept
run indexpilot indexpilot
compare
captured
printf 'crashes: %s and %s\n' "$(crashes unmodified)" "$(crashes indexpilot)"
[ "$(crashes indexpilot)" = 0 ] || wrong=1
if [ -n "${ORDERS:-}" ]; then
  say "all load orders"
  extension pg-qualstats pg_qualstats || true
  # As `make check` runs the cluster tests, but with all libraries there.
  PG_CONFIG=$private_pg_config cargo test --workspace --test cluster orders:: || wrong=1
fi
exit $wrong
