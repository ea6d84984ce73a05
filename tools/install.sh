#!/bin/bash
# install.sh [--release]: builds the extension and installs it into the private PostgreSQL; with PG_CONFIG set, into that one.
. "$(dirname "$0")/env.sh"
exec cargo pgrx install "$@" --pg-config "${PG_CONFIG:-$private_pg_config}"
