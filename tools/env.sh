# Where everything is; for the scripts beside it to source. Everything that is built or downloaded lies below the target directory.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" # cargo reads .cargo/config.toml from the current directory
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$CARGO_TARGET_DIR"
CARGO_TARGET_DIR=$(readlink -f "$CARGO_TARGET_DIR")
[ -f "${CARGO_HOME:-$HOME/.cargo}/env" ] && . "${CARGO_HOME:-$HOME/.cargo}/env"
export PATH="$CARGO_TARGET_DIR/tools/bin:$PATH"
export USER=${USER:-$(id -un)}
# pgrx puts a backtrace into the DETAIL of errors when this is set, and no expected output would match.
unset RUST_BACKTRACE
# cargo-pgrx would otherwise change RUSTFLAGS for install and test, and every crate would be built twice.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1
# cargo builds the solver (C++) once for each way its dependencies resolve; the second time the compiler's results are there.
export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_DIR=$CARGO_TARGET_DIR/ccache CCACHE_BASEDIR=$CARGO_TARGET_DIR CCACHE_NOHASHDIR=1

pg_major=15
cargo_pgrx_version=0.18.1
system_pg=/usr/lib/postgresql/$pg_major

say() { printf '\n==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
is_root() { [ "$(id -u)" = 0 ]; }

# Servers refuse to run as root; then user postgres runs them, who may not be able to get below the target directory (a checkout in
# root's home). In that case what the server must reach lies in /var/tmp, and target has links to it.
space() {
  if ! is_root || ! id postgres >/dev/null 2>&1 || runuser -u postgres -- test -x "$CARGO_TARGET_DIR"; then
    echo "$CARGO_TARGET_DIR"
  else
    echo "/var/tmp/indexpilot-$(printf %s "$CARGO_TARGET_DIR" | cksum | cut -d' ' -f1)"
  fi
}

# Makes $CARGO_TARGET_DIR/$1 a directory that the server's user can reach, and prints its true path.
reachable() {
  local base link=$CARGO_TARGET_DIR/$1
  base=$(space)
  if [ "$base" != "$CARGO_TARGET_DIR" ]; then
    if [ ! -d "$base" ]; then mkdir -m 755 "$base"; fi
    [ -O "$base" ] && [ ! -L "$base" ] || die "$base belongs to somebody else"
    mkdir -p "$base/$1"
    if [ ! -L "$link" ]; then rm -rf "$link"; ln -s "$base/$1" "$link"; fi
  else
    mkdir -p "$link"
  fi
  readlink -f "$link"
}

PGRX_HOME=$(reachable pgrx)
export PGRX_HOME
prefix=$(reachable pg15)
pg_bin=$prefix/usr/lib/postgresql/$pg_major/bin
private_pg_config=$pg_bin/pg_config
