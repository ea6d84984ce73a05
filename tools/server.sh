#!/bin/bash
# server.sh start|stop: a scratch server with the extension preloaded and created in database postgres. Data stay until `make clean-check`.
. "$(dirname "$0")/env.sh"
. tools/cluster.sh
dir=$(reachable server)/scratch

case ${1:-start} in
  start)
    if [ ! -d "$dir/data" ]; then
      conf=$(mktemp)
      printf "shared_preload_libraries = 'indexpilot'\nindexpilot.worker_interval = '1s'\n" >"$conf"
      cluster_start "$dir" "$USER" "$conf"
      rm -f "$conf"
    elif ! "$pg_bin/pg_ctl" -D "$dir/data" status >/dev/null; then
      # /tmp may have been cleaned meanwhile.
      socket=$(cat "$dir/socket")
      [ -d "$socket" ] || { mkdir -m 711 "$socket"; if is_root; then chown postgres "$socket"; fi; }
      cluster_up "$dir"
    fi
    socket=$(cat "$dir/socket")
    "$pg_bin/psql" -qX -h "$socket" -U "$USER" -d postgres -c 'SET client_min_messages = warning' -c 'CREATE EXTENSION IF NOT EXISTS indexpilot'
    printf '\nThe server is ready; its log is %s. Connect with\n\n    %s -h %s -U %s postgres\n\n' "$dir/server.log" "$pg_bin/psql" "$socket" "$USER"
    ;;
  stop) cluster_stop "$dir" ;;
  *) die "usage: server.sh start|stop" ;;
esac
