#!/bin/bash
# Builds Kiln and does its main job for real, with no container registry in reach: makes base images from Debian
# packages, builds a sample of several stages and the Python app of the Docker tutorials, builds both again from the
# cache, runs them, and shows what happened.
#
# Usage: scripts/demo.sh [--root DIR]     (default: a folder of its own, removed at the end)
#
# Runs as root or as an ordinary user; packages are installed with apt-get, through sudo when not root. Needs Rust.
# The Python app needs the Python package index; when that cannot be reached, the app is left out, and said so.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
top=$(top_folder)
cd "$top"

store=
while [ $# -gt 0 ]; do
  case $1 in
    --root) store=${2:?--root needs a folder}; shift ;;
    -h|--help) sed -n '2,/^set -e/p' "${BASH_SOURCE[0]}" | sed -e '$d' -e 's/^# \{0,1\}//'; exit 0 ;;
    *) die "unknown argument: $1" ;;
  esac
  shift
done

work=$(mktemp -d "${KILN_TEST_TMP:-/var/tmp}/kiln-demo.XXXXXX")
server=
cleanup() {
  if [ -n "$server" ]; then
    # The app is process 1 of its container and need not heed the first signal.
    kill "$server" 2>/dev/null || true
    for _ in 1 2 3 4 5 6; do kill -0 "$server" 2>/dev/null && sleep 0.5; done
    kill -KILL "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  # An ordinary user's store holds files of the user's sub-ids.
  rm -rf "$work" 2>/dev/null || unshare --user --map-root-user --map-auto rm -rf "$work" || true
}
trap cleanup EXIT
[ -n "$store" ] || store=$work/store

command -v cargo >/dev/null || die "cargo is not on the PATH; install Rust first: https://rustup.rs"
need_packages build-essential ca-certificates uidmap busybox-static mmdebstrap debian-archive-keyring curl

say "building Kiln (release)"
cargo build --release --locked -p kiln-cli
kiln=$(cargo build --release --locked -p kiln-cli --message-format json 2>/dev/null |
  sed -n 's/.*"name":"kiln".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$kiln" ] || die "cargo built no kiln binary"
kiln() { "$kiln" --root "$store" --ca-bundle host "$@"; }

say "base images, from Debian packages"
"$here/make-base-images.sh" --kiln "$kiln" --root "$store"

summary=()
now() { date +%s%N; }
# Runs a build and notes how long it took and how many of its steps came from the cache.
build() { # WORDS NAME FOLDER
  local start log=$work/log
  say "kiln build -t $2 ${3#"$top"/}    ($1)"
  start=$(now)
  kiln build --progress plain -t "$2" "$3" 2>&1 | tee "$log" >&2
  summary+=("$(printf '%-44s %6d ms, %2d steps from the cache' "$1" $((($(now) - start) / 1000000)) \
    "$(grep -cE '^#[0-9]+ CACHED' "$log" || true)")")
}
# Fails when a step of the last build was not taken from the cache.
all_cached() { # WORDS
  local missed
  missed=$(awk '/^#[0-9]+ \[[^]]*[0-9]+\/[0-9]+\] (RUN|COPY|ADD|WORKDIR)/ { steps[$1] = $0 }
    /^#[0-9]+ CACHED/ { delete steps[$1] } END { for (step in steps) print steps[step] }' "$work/log")
  [ -z "$missed" ] || die "$1: not from the cache: $missed"
}

build 'sample of five stages' sample:demo "$top/testdata/sample"
build 'the same again' sample:demo "$top/testdata/sample"
all_cached 'sample, built again'
say "kiln run --rm sample:demo"
kiln run --rm sample:demo

cp -r "$top/testdata/python-app" "$work/app"
if curl --silent --show-error --fail --max-time 20 --output /dev/null https://pypi.org/simple/flask/; then
  build 'Python app, with pip' app:demo "$work/app"
  build 'the same again' app:demo "$work/app"
  all_cached 'Python app, built again'
  sed -i 's/Hello from a container/Hello from a changed container/' "$work/app/app.py"
  build 'app.py changed' app:demo "$work/app"
  port=$((20000 + RANDOM % 20000))
  say "kiln run --rm -e PORT=$port app:demo, and a request"
  "$kiln" --root "$store" run --rm -e HOST=127.0.0.1 -e PORT=$port app:demo > "$work/server.log" 2>&1 &
  server=$!
  answer=$(curl --silent --show-error --retry 50 --retry-connrefused --retry-delay 1 --retry-max-time 30 \
    "http://127.0.0.1:$port/") || { cat "$work/server.log" >&2; die "the app does not answer"; }
  echo "$answer"
  [ "$answer" = 'Hello from a changed container!' ] || die "the app answers something else"
  summary+=("the app answered over HTTP: $answer")
else
  summary+=('SKIPPED: the Python app, because the Python package index cannot be reached')
fi

say "kiln images"
kiln images
say "what happened"
printf '  %s\n' "${summary[@]}"
say "everything worked"
