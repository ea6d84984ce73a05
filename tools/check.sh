#!/bin/bash
# check.sh [STEP ...]: runs all checks, or those that are named, and stops at the first that fails. The last line sums up the tests.
# Steps: setup fmt clippy doc core install pgtest regress isolation cluster
. "$(dirname "$0")/env.sh"
. tools/cluster.sh

logs=$CARGO_TARGET_DIR/check
mkdir -p "$logs"
pgxs=$prefix/usr/lib/postgresql/$pg_major/lib/pgxs/src/test
passed=0 failed=0

finish() {
  local status=$? dir
  for dir in "$CARGO_TARGET_DIR"/cluster/*-$$; do
    if [ -d "$dir" ]; then cluster_remove "$dir"; fi
  done
  [ $status = 0 ] || [ $failed -gt 0 ] || failed=1
  printf '\n%s passed, %s failed\n' "$passed" "$failed"
}
trap finish EXIT

# Adds up what the runners of cargo and PostgreSQL say in a log.
count() {
  local sums
  sums=$(awk '
    /^test result:/ { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i - 1); if ($i ~ /^failed/) f += $(i - 1) } next }
    /^(test|    ) +[^ ]+ +\.\.\. ok/ && / ms$/ { p++ }
    /^(test|    ) +[^ ]+ +\.\.\. FAILED/ && / ms$/ { f++ }
    /^ok [0-9]+ +[-+] / { p++ }
    /^not ok [0-9]+ +[-+] / { f++ }
    END { print p + 0, f + 0 }' "$1")
  passed=$((passed + ${sums% *})) failed=$((failed + ${sums#* }))
}

step() { # NAME COMMAND...: runs it, shows and keeps its output, counts its tests
  local name=$1 start=$SECONDS status=0
  shift
  say "$name"
  "$@" 2>&1 | tee "$logs/$name.log" || status=$?
  count "$logs/$name.log"
  if [ $status != 0 ]; then
    printf '\n==> %s failed after %s s\n' "$name" $((SECONDS - start))
    exit $status
  fi
  printf '==> %s: %s s\n' "$name" $((SECONDS - start))
}

# The solver is built by a build script, which cargo builds anew for every selection of packages that resolves its dependencies to
# other features. So everything that needs it selects the workspace, and the root package's own tests (pg_*) are left to pgtest.
core_tests() {
  cargo test --workspace --lib --bins --no-default-features --features "indexpilot/pg$pg_major indexpilot/pg_test" -- --skip ::pg_
}

pg_tests() {
  local data
  data=$(reachable pgtest)/data
  rm -rf "$data" && mkdir "$data"
  if is_root; then chown postgres "$data"; fi # for the socket
  CARGO_PGRX_TEST_PGDATA=$data cargo pgrx test "pg$pg_major"
}

server_for() { # NAME: a server with the extension preloaded, and its settings for regression tests
  local dir
  dir=$(reachable cluster)/$1-$$
  cluster_start "$dir" postgres pg_regress/postgresql.conf
}

# NAME: shows the difference, and the server's log, of a run that failed.
regress_failed() {
  if [ -s "$logs/$1/regression.diffs" ]; then cat "$logs/$1/regression.diffs"; fi
  tail -30 "$CARGO_TARGET_DIR/cluster/$1-$$/server.log"
  return 1
}

regress() {
  local out=$logs/regress
  if ! compgen -G 'pg_regress/sql/*.sql' >/dev/null; then
    echo "no tests"
    [ "${CI:-}" != true ]
    return
  fi
  missing_expected sql
  rm -rf "$out" && mkdir -p "$out"
  server_for regress
  "$pg_bin/psql" -qX -h "$socket" -U postgres -d postgres -c 'CREATE DATABASE regression'
  "$pgxs/regress/pg_regress" --bindir="$pg_bin" --inputdir=pg_regress --outputdir="$out" --use-existing --dbname=regression \
    --host="$socket" --port=5432 --user=postgres --schedule=pg_regress/schedule || regress_failed regress
}

isolation() {
  local out=$logs/isolation specs
  if ! compgen -G 'pg_regress/specs/*.spec' >/dev/null; then
    echo "no tests"
    [ "${CI:-}" != true ]
    return
  fi
  missing_expected specs
  rm -rf "$out" && mkdir -p "$out"
  server_for isolation
  "$pg_bin/psql" -qX -h "$socket" -U postgres -d postgres -c 'CREATE DATABASE isolation'
  "$pg_bin/psql" -qX -h "$socket" -U postgres -d isolation -c 'CREATE EXTENSION indexpilot'
  specs=$(basename -a -s .spec pg_regress/specs/*.spec)
  # shellcheck disable=SC2086 # one argument for each
  "$pgxs/isolation/pg_isolation_regress" --bindir="$pg_bin" --inputdir=pg_regress --outputdir="$out" --use-existing --dbname=isolation \
    --host="$socket" --port=5432 --user=postgres $specs || regress_failed isolation
}

# pg_regress passes over a test that has no expected output.
missing_expected() {
  local file name
  for file in "pg_regress/$1"/*; do
    name=$(basename "${file%.*}")
    [ -f "pg_regress/expected/$name.out" ] || die "$file has no expected output in pg_regress/expected"
  done
}

# They wait for servers more than they work, so more of them run than there are processors.
cluster_tests() {
  RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))} PG_CONFIG=$private_pg_config cargo test --workspace --test '*' --no-fail-fast
}

run() {
  case $1 in
    setup) step setup tools/setup.sh ;;
    fmt) step fmt cargo fmt --all --check ;;
    clippy) step clippy cargo clippy --workspace --all-targets -- -D warnings ;;
    # Private modules are documented too, so links to them are fine.
    doc) RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' step doc cargo doc --workspace --no-deps --document-private-items ;;
    core) step core core_tests ;;
    install) step install env -u PG_CONFIG tools/install.sh ;;
    pgtest) step pgtest pg_tests ;;
    regress) step regress regress ;;
    isolation) step isolation isolation ;;
    cluster) step cluster cluster_tests ;;
    *) die "no step is called $1; they are: setup fmt clippy doc core install pgtest regress isolation cluster" ;;
  esac
}

if [ $# = 0 ]; then
  set -- setup fmt clippy doc core install pgtest regress isolation cluster
else
  needed=()
  for name in "$@"; do
    case $name in regress | isolation | cluster) needed=(install) ;; esac
  done
  set -- setup "${needed[@]}" "$@"
fi
tools/clean.sh
mkdir -p "$logs"
done_steps=' '
for name in "$@"; do
  case $done_steps in *" $name "*) continue ;; esac
  run "$name"
  done_steps+="$name "
done
