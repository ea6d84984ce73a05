#!/bin/bash
# symcheck.sh EXTENSION.so POSTGRES LIBPG_QUERY.a: proves that libpg_query and the server share no symbol.
#
# libpg_query is made from the server's sources and would define palloc, errstart, CurrentMemoryContext and hundreds more under the
# server's names; the linker would bind the extension to those without a word. tools/pgq_rename/pgq_rename.h renames them all.
set -euo pipefail
[ $# = 3 ] || { echo "usage: symcheck.sh EXTENSION.so POSTGRES LIBPG_QUERY.a" >&2; exit 2; }
so=$1 server=$2 archive=$3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export LC_ALL=C # sort and comm must agree

names() { sed 's/@.*//' | sort -u; }
nm -D --defined-only "$server" | awk '{print $3}' | names >"$dir/server-all"
# What the server only passes on from libc (stdin, stdout, stderr) is not its own.
libc=$(ldd "$server" | awk '$1 ~ /^libc\.so/ {print $3}')
if [ -n "$libc" ]; then nm -D --defined-only "$libc" | awk '{print $3}' | names >"$dir/libc"; else : >"$dir/libc"; fi
comm -23 "$dir/server-all" "$dir/libc" >"$dir/server"
nm -D --undefined-only "$so" | awk '{print $2}' | names >"$dir/so-needs"
nm -D --defined-only "$so" | awk '{print $3}' | names >"$dir/so-exports"
nm --defined-only "$so" 2>/dev/null | awk '$2 ~ /^[A-Za-z]$/ {print $3}' | names >"$dir/so-defines" || true
nm -g --defined-only "$archive" 2>/dev/null | awk 'NF == 3 {print $3}' | names >"$dir/archive-defines"
nm -g --undefined-only "$archive" 2>/dev/null | awk 'NF == 2 {print $2}' | names | comm -23 - "$dir/archive-defines" >"$dir/archive-needs"

failed=0
fail() { echo "FAILED: $1: $2"; failed=1; }
none() { # FILE FILE MESSAGE: nothing is in both
  comm -12 "$1" "$2" >"$dir/both"
  if [ -s "$dir/both" ]; then fail "$3" "$(head -8 "$dir/both" | tr '\n' ' ')"; fi
}
[ "$(wc -l <"$dir/server")" -gt 1000 ] || { echo "FAILED: $server exports next to nothing: not a server"; exit 1; }
[ -s "$dir/archive-defines" ] || { echo "FAILED: $archive defines nothing"; exit 1; }

none "$dir/archive-defines" "$dir/server" "libpg_query defines symbols of the server"
none "$dir/archive-needs" "$dir/server" "libpg_query would take from the server"
none "$dir/so-exports" "$dir/archive-defines" "the extension exports symbols of libpg_query"
for symbol in palloc pfree errstart errfinish CurrentMemoryContext PG_exception_stack error_context_stack; do
  if ! grep -qx "$symbol" "$dir/so-needs" && grep -qx "$symbol" "$dir/so-defines"; then
    fail "bound inside the extension instead of in the server" "$symbol"
  fi
done
grep -qx palloc "$dir/so-needs" || fail "not taken from the server" palloc
# Static thread-local storage is scarce: a library that wants much of it cannot be loaded.
if readelf -dW "$so" | grep -q STATIC_TLS; then fail "wants static thread-local storage" "$so"; fi

echo "libpg_query defines $(wc -l <"$dir/archive-defines") symbols and needs $(wc -l <"$dir/archive-needs");" \
  "the extension takes $(comm -12 "$dir/so-needs" "$dir/server" | wc -l) from the server and exports $(wc -l <"$dir/so-exports")"
exit $failed
