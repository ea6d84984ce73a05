# The door to everything; what each target does stands in tools/.

CARGO_TARGET_DIR ?= target
PG_CONFIG ?=

.PHONY: check demo setup server server-stop install clean-check bench-capture bench-capture-cardinality bench-select bench-select-real bench-select-stars bench-select-scale bench-verify regress-core soak

check:            ## everything that CI runs
	@tools/check.sh

demo: setup       ## two workloads, before and after IndexPilot
	@tools/demo.sh

setup:            ## packages, cargo-pgrx, a private PostgreSQL below target
	@tools/setup.sh

server: setup     ## a scratch server with the extension
	@tools/install.sh --release
	@tools/server.sh start

server-stop:      ## stops it
	@tools/server.sh stop

install:          ## into the PostgreSQL of PG_CONFIG=/path/to/pg_config
	@test -n "$(PG_CONFIG)" || { echo 'usage: make install PG_CONFIG=/path/to/pg_config' >&2; exit 2; }
	@tools/setup.sh
	@PG_CONFIG="$(PG_CONFIG)" tools/install.sh --release

bench-capture: setup  ## what capture costs a query, beside other extensions
	@tools/bench.sh capture

bench-capture-cardinality: setup  ## a million distinct queries, ten thousand tenants
	@tools/bench.sh cardinality

bench-select: setup  ## what the chosen indexes are worth on TPC-H, beside other advisors; TPCH_QUERIES=dir for its own queries
	@tools/bench.sh select

bench-select-real: setup  ## time of the TPC-H queries with the chosen indexes, with Extend's, and without
	@tools/bench.sh select-real

bench-select-stars: setup  ## the same for ninety questions over 24 tables, beside Extend
	@tools/bench.sh select-stars

bench-select-scale: setup  ## seconds and memory for 5000 templates over 500 tables
	@tools/bench.sh select-scale

bench-verify: setup  ## how often the verdict on an index is right, on a server under load
	@tools/bench.sh verify

regress-core: setup  ## PostgreSQL's own tests, without and with IndexPilot; ORDERS=1 adds all load orders beside other extensions
	@tools/regress-core.sh

soak: setup       ## ten minutes of writes while indexes on the tables come and go; SOAK_SECONDS=n
	@tools/soak.sh

clean-check:      ## stops and removes servers that were left behind
	@tools/clean.sh
