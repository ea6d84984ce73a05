#!/bin/bash
# bench.sh BENCHMARK [OPTION ...]: builds extension and benchmarks optimised, and runs one on throw-away servers (`--help` lists them).
# What the benchmarks need beside setup's packages is had for them: valgrind, and pg_qualstats and HypoPG to compare with. The data of
# those that choose indexes stays below target/bench-data for the next run.
. "$(dirname "$0")/env.sh"
. tools/packages.sh
case "${1:-}" in
capture)
  extension pg-qualstats pg_qualstats || true
  installed valgrind valgrind
  ;;
select*)
  extension hypopg hypopg || true
  BENCH_DATA=${BENCH_DATA:-$(reachable bench-data)}
  export BENCH_DATA
  ;;
esac
cargo build --release -p indexpilot-bench
env -u PG_CONFIG tools/install.sh --release
# Whatever else the machine does goes first; what is measured is not time on the clock.
exec nice env PG_CONFIG="$private_pg_config" "$CARGO_TARGET_DIR/release/indexpilot-bench" "$@"
