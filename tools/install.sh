#!/bin/bash
# install.sh [--release] [--sudo]: builds the extension and installs it into the private PostgreSQL; with PG_CONFIG set, into that one.
# --sudo: builds as the caller, and copies the files with sudo, over those that are there: no server may have the library loaded.
. "$(dirname "$0")/env.sh"
config=${PG_CONFIG:-$private_pg_config}
case " $* " in
  *" --sudo "*) ;;
  *)
    for dir in "$("$config" --pkglibdir)" "$("$config" --sharedir)/extension"; do
      [ ! -d "$dir" ] || [ -w "$dir" ] ||
        die "you may not write to $dir; with the server stopped, this builds as you and copies the files with sudo: PG_CONFIG=$config tools/install.sh --release --sudo"
    done
    ;;
esac
exec cargo pgrx install "$@" --pg-config "$config"
