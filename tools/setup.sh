#!/bin/bash
# Makes a machine ready for `make check` and `make demo`: packages of the distribution, cargo-pgrx, and a private copy of PostgreSQL.
# Does only what is missing; runs as root or as a user with sudo; touches no PostgreSQL that is in use.
. "$(dirname "$0")/env.sh"

# ------------------------------------------------------------------------------------------------------------------------- Rust
command -v cargo >/dev/null || die "cargo is missing; install Rust 1.95 or newer"
rust=$(cargo --version | cut -d' ' -f2)
[ "$(printf '%s\n' 1.95.0 "${rust%%-*}" | sort -V | head -1)" = 1.95.0 ] || die "Rust $rust is too old; 1.95 or newer is needed (rustup update)"

# --------------------------------------------------------------------------------------------------------------------- packages
has_libclang() { compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || ldconfig -p | grep -q libclang; }
missing=()
[ -x $system_pg/bin/postgres ] || missing+=(postgresql-$pg_major)
[ -f /usr/include/postgresql/$pg_major/server/postgres.h ] && [ -x $system_pg/lib/pgxs/src/test/regress/pg_regress ] ||
  missing+=(postgresql-server-dev-$pg_major)
has_libclang || missing+=(libclang-dev)
command -v clang >/dev/null || missing+=(clang)
command -v cmake >/dev/null || missing+=(cmake)
command -v cc >/dev/null && command -v c++ >/dev/null && command -v make >/dev/null && command -v nm >/dev/null || missing+=(build-essential)
command -v ccache >/dev/null || missing+=(ccache)
command -v pkg-config >/dev/null || missing+=(pkg-config)
command -v curl >/dev/null || [ -f /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

if [ ${#missing[@]} -gt 0 ]; then
  say "installing ${missing[*]}"
  command -v apt-get >/dev/null || die "these packages (by their names in Debian) are needed, and there is no apt-get: ${missing[*]}"
  if is_root; then sudo=(); elif command -v sudo >/dev/null; then sudo=(sudo)
  else die "these packages are needed, and you are neither root nor have sudo: apt-get install ${missing[*]}"; fi
  # The lists of a fresh image are empty, and old ones name files that are gone: update once when the first try fails.
  apt() { "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "$@"; }
  apt install -y --no-install-recommends "${missing[@]}" || { apt update && apt install -y --no-install-recommends "${missing[@]}"; } ||
    die "apt-get could not install ${missing[*]}; PostgreSQL $pg_major is in Debian 12 and in the PostgreSQL project's own packages"
fi
is_root && { id postgres >/dev/null 2>&1 || die "there is no user postgres, and servers refuse to run as root"; }

# ------------------------------------------------------------------------------------------------------------------- cargo-pgrx
if [ "$(cargo pgrx --version 2>/dev/null)" != "cargo-pgrx $cargo_pgrx_version" ]; then
  say "installing cargo-pgrx $cargo_pgrx_version (about ten minutes, once)"
  # From /, where no .cargo/config.toml applies.
  (cd / && CARGO_TARGET_DIR=$CARGO_TARGET_DIR/tools/build \
    cargo install cargo-pgrx --version "=$cargo_pgrx_version" --locked --root "$CARGO_TARGET_DIR/tools")
  rm -rf "$CARGO_TARGET_DIR/tools/build"
fi

# ------------------------------------------------------------------------------------------------------------ private PostgreSQL
# The distribution's PostgreSQL finds its files from where its programs are, so a copy is complete. Extensions are installed into
# the copy, never into the system.
stamp="$($system_pg/bin/postgres --version) $(cksum <"$0")"
if [ "$(cat "$prefix/stamp" 2>/dev/null)" != "$stamp" ]; then
  say "copying $($system_pg/bin/postgres --version) to $prefix"
  rm -rf "$prefix/usr" "$prefix/stamp"
  mkdir -p "$prefix/usr/lib/postgresql" "$prefix/usr/share/postgresql" "$prefix/usr/include"
  cp -r $system_pg "$prefix/usr/lib/postgresql/"
  cp -r /usr/share/postgresql/$pg_major "$prefix/usr/share/postgresql/"
  cp -r /usr/include/postgresql "$prefix/usr/include/"
  mv "$pg_bin/initdb" "$pg_bin/initdb.real"
  mv "$pg_bin/pg_ctl" "$pg_bin/pg_ctl.real"
  # cargo-pgrx calls these two by name. As root they continue as user postgres; everybody else gets the original.
  cat >"$pg_bin/initdb" <<'W'
#!/bin/bash
# Runs initdb; as root, as user postgres on a directory that is given to postgres. The first superuser is called as the caller is.
real=$(readlink -f "$0").real
[ "$(id -u)" = 0 ] || exec "$real" "$@"
arguments=("$@")
for i in "${!arguments[@]}"; do
  case ${arguments[i]} in
    -D | --pgdata) data=${arguments[i + 1]} ;;
    -D*) data=${arguments[i]#-D} ;;
    --pgdata=*) data=${arguments[i]#--pgdata=} ;;
  esac
done
[ -z "${data:-}" ] || install -d -o postgres -m 700 "$data"
cd / && exec runuser -u postgres -- "$real" -A trust -U "${USER:-root}" "$@"
W
  cat >"$pg_bin/pg_ctl" <<'W'
#!/bin/bash
# Runs pg_ctl; as root, as user postgres, who must be able to write the log file.
real=$(readlink -f "$0").real
[ "$(id -u)" = 0 ] || exec "$real" "$@"
arguments=("$@")
for i in "${!arguments[@]}"; do
  if [ "${arguments[i]}" = -l ]; then
    log=${arguments[i + 1]}
    [ -e "$log" ] || : >"$log"
    chown postgres "$log"
  fi
done
cd / && exec runuser -u postgres -- "$real" "$@"
W
  chmod 755 "$pg_bin/initdb" "$pg_bin/pg_ctl"
  [ "$("$private_pg_config" --pkglibdir)" = "$prefix/usr/lib/postgresql/$pg_major/lib" ] || die "the copy of PostgreSQL in $prefix does not find itself"
  echo "$stamp" >"$prefix/stamp"
fi

config="base_port = 28800
base_testing_port = 32200

[configs]
pg$pg_major = \"$private_pg_config\""
[ "$(cat "$PGRX_HOME/config.toml" 2>/dev/null)" = "$config" ] || echo "$config" >"$PGRX_HOME/config.toml"
