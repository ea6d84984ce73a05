#!/bin/bash
# demo.sh [OPTION ...]: builds extension and demo optimised, and runs the demo on a throw-away server. Options go to the demo.
. "$(dirname "$0")/env.sh"
cargo build --release -p indexpilot-demo
env -u PG_CONFIG tools/install.sh --release
exec env PG_CONFIG="$private_pg_config" "$CARGO_TARGET_DIR/release/indexpilot-demo" "$@"
