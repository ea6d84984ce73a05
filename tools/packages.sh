# Packages of the distribution that only some checks and benchmarks need: source it after env.sh.

# installed COMMAND PACKAGE: installs a package of the distribution when a command is missing.
installed() {
  command -v "$1" >/dev/null && return
  say "installing $2"
  if is_root; then apt-get install -y --no-install-recommends "$2"; else sudo apt-get install -y --no-install-recommends "$2"; fi ||
    die "package $2 is needed, and could not be installed"
}

# source_package DIR NAME VERSION: the original source of a package; sets $tarball. The version that is wanted comes first, but archives
# lose files of the newest ones at times, then the next older one does.
source_package() {
  local dir=$1 name=$2 wanted=$3 list version upstream apt
  tarball=$(compgen -G "$dir/${name}_$wanted.orig.tar.*" | tail -1 || true)
  [ -z "$tarball" ] || return 0
  mkdir -p "$dir/parts" "$dir/lists/partial" "$dir/cache/archives/partial"
  # The machine's own lists, as lists of sources.
  for list in /etc/apt/sources.list.d/*.sources; do
    [ ! -f "$list" ] || sed -E 's/^Types:.*/Types: deb-src/' "$list" >"$dir/parts/$(basename "$list")"
  done
  for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ ! -f "$list" ] || sed -nE 's/^deb(-src)?( .*)$/deb-src\2/p' "$list" >"$dir/parts/$(basename "$list" .list).list"
  done
  apt=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$dir/parts" -o "Dir::State::Lists=$dir/lists"
    -o "Dir::Cache=$dir/cache" -o APT::Sandbox::User="$(id -un)" -qq)
  say "looking for the source of $name $wanted"
  apt-get "${apt[@]}" update || say "some package lists could not be read"
  for version in $({ apt-cache "${apt[@]}" showsrc --only-source "$name" | sed -n 's/^Version: //p' | sort -Vru; } 2>/dev/null); do
    upstream=${version%-*}
    [ "$(printf '%s\n' "$upstream" "$wanted" | sort -V | head -1)" = "$upstream" ] || continue
    tarball=$(compgen -G "$dir/${name}_$upstream.orig.tar.*" | tail -1 || true)
    [ -z "$tarball" ] || return 0
    (cd "$dir" && apt-get "${apt[@]}" source --download-only "$name=$version") || continue
    tarball=$(compgen -G "$dir/${name}_$upstream.orig.tar.*" | tail -1 || true)
    [ -z "$tarball" ] || return 0
  done
  die "the source package of $name cannot be had; name a tarball of PostgreSQL $pg_major in PG_SOURCE"
}

# extension NAME LIBRARY: puts an extension of the distribution into the private PostgreSQL, not into the system; fails when it cannot
# be had.
extension() {
  local package=postgresql-$pg_major-$1 dir=$CARGO_TARGET_DIR/packages/$1
  [ ! -f "$prefix/usr/lib/postgresql/$pg_major/lib/$2.so" ] || return 0
  rm -rf "$dir" && mkdir -p "$dir"
  if ! (cd "$dir" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package" &&
    dpkg-deb -x ./*.deb . && cp -r usr/lib usr/share "$prefix/usr/"); then
    say "package $package cannot be had: it is left out"
    return 1
  fi
}
