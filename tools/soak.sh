#!/bin/bash
# soak.sh: writes by pgbench for ten minutes (SOAK_SECONDS) while indexes on its tables come and go, and what came of it. `make check` has
# fifteen seconds of it.
. "$(dirname "$0")/env.sh"
env -u PG_CONFIG tools/install.sh
export SOAK_SECONDS=${SOAK_SECONDS:-600} PG_CONFIG=$private_pg_config
exec cargo test --workspace --test cluster soak -- --nocapture
