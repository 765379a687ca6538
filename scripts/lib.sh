# Functions that the scripts of this folder share. Sourced, not run.
# shellcheck shell=bash

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf '\033[1;31merror:\033[0m %s\n' "$*" >&2; exit 1; }

# Runs a command as root: directly, or through sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    say "sudo is needed for: $*"
    sudo "$@"
  else
    die "not root and no sudo; run as root: $*"
  fi
}

missing_packages() { # PACKAGE...
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || echo "$package"
  done
}

# Installs the packages that are not installed yet. Fails when one cannot be installed.
need_packages() { # PACKAGE...
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "these packages are needed and apt-get is not here: ${missing[*]}"
  say "installing packages: ${missing[*]}"
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2; then
    say "refreshing the package lists"
    as_root apt-get update >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2
  fi
}

# Installs packages that only widen what is tested; says so loudly when one is not to be had.
want_packages() { # PACKAGE...
  local package
  for package in "$@"; do
    [ -n "$(missing_packages "$package")" ] || continue
    (need_packages "$package") || say "WARNING: package $package cannot be installed; what needs it will be skipped"
  done
}

# The checkout's top folder.
top_folder() { (cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd); }

# Prints the path of the newest kiln binary of this checkout, or of the one on the PATH.
find_kiln() {
  local newest
  newest=$(find "${CARGO_TARGET_DIR:-$(top_folder)/target}" -maxdepth 3 -type f -name kiln -perm -u+x \
    -printf '%T@ %p\n' 2>/dev/null | sort -rn | head -n 1 | cut -d ' ' -f 2-)
  [ -n "$newest" ] || newest=$(command -v kiln) || return 1
  echo "$newest"
}
