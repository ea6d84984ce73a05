# A cluster for shell scripts to use: source it after env.sh.

# cluster_start DIR SUPERUSER [CONF]: makes a cluster in DIR (which must not exist) and starts it; sets $socket.
cluster_start() {
  local dir=$1 superuser=$2 conf=${3:-}
  mkdir -p "$(dirname "$dir")"
  mkdir -m 755 "$dir"
  socket=$(mktemp -d /tmp/ip-XXXXXX)
  chmod 711 "$socket"
  if is_root; then chown postgres "$dir" "$socket"; fi
  echo "$socket" >"$dir/socket"
  "$pg_bin/initdb" -A trust -E UTF8 --no-locale --no-sync -D "$dir/data" -U "$superuser" >"$dir/initdb.log" 2>&1 ||
    { cat "$dir/initdb.log" >&2; die "could not make a cluster in $dir"; }
  { [ -z "$conf" ] || cat "$conf"; printf "listen_addresses = ''\nport = 5432\nunix_socket_directories = '%s'\n" "$socket"; } >>"$dir/data/postgresql.conf"
  cluster_up "$dir"
}

cluster_up() {
  "$pg_bin/pg_ctl" -D "$1/data" -l "$1/server.log" -w -t 60 start >/dev/null || { tail -40 "$1/server.log" >&2; die "the server in $1 does not start"; }
}

# cluster_stop DIR: stops the cluster in DIR if it runs.
cluster_stop() {
  if [ -f "$1/data/postmaster.pid" ]; then "$pg_bin/pg_ctl" -D "$1/data" -w -t 60 -m "${2:-fast}" stop >/dev/null || true; fi
}

# cluster_remove DIR: stops it, and removes it with its socket.
cluster_remove() {
  cluster_stop "$1" immediate
  if [ -f "$1/socket" ]; then rm -rf "$(cat "$1/socket")"; fi
  rm -rf "$1"
}
