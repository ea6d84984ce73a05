#!/bin/bash
# bench.sh BENCHMARK [OPTION ...]: builds extension and benchmarks optimised, and runs one on throw-away servers (`--help` lists them).
# What the benchmarks need beside setup's packages is had for them: valgrind, and pg_qualstats to compare with.
. "$(dirname "$0")/env.sh"
. tools/packages.sh
if [ "${1:-}" = capture ]; then
  qualstats || true
  installed valgrind valgrind
fi
cargo build --release -p indexpilot-bench
env -u PG_CONFIG tools/install.sh --release
# Whatever else the machine does goes first; what is measured is not time on the clock.
exec nice env PG_CONFIG="$private_pg_config" "$CARGO_TARGET_DIR/release/indexpilot-bench" "$@"
