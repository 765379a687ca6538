#!/bin/bash
# Runs all checks and all tests: formatting, clippy, documentation, licences and advisories, unit tests, and the
# end-to-end tests with the real binary, as root and as an ordinary user.
#
# Usage: scripts/test.sh [--no-install] [STEP ...]
#   --no-install   install no packages and no tools; what is missing is skipped and told
#   STEP           only these: fmt clippy doc deny unit e2e-root e2e-user    (default: all)
#
# Installs what the tests need with apt-get (through sudo when not root) and cargo-deny with cargo. As root it makes the
# user kiln-test for the second pass of the end-to-end tests; as an ordinary user there is only that user's pass.
# The last line says how many passed, failed and were skipped; what was skipped is listed above it.
#
# KILN_E2E_OFFLINE=1 leaves out the tests that need the world's package indices; KILN_E2E_PROJECTS=1 adds the ten large
# projects: minutes and some hundred megabytes each.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
top=$(top_folder)
cd "$top" || exit 1

install=yes
steps=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) install=no ;;
    -h|--help) sed -n '2,/^set -u/p' "${BASH_SOURCE[0]}" | sed -e '$d' -e 's/^# \{0,1\}//'; exit 0 ;;
    fmt|clippy|doc|deny|unit|e2e-root|e2e-user) steps+=("$1") ;;
    *) die "unknown argument: $1" ;;
  esac
  shift
done
[ ${#steps[@]} -gt 0 ] || steps=(fmt clippy doc deny unit e2e-root e2e-user)
wanted() { local step; for step in "${steps[@]}"; do [ "$step" = "$1" ] && return 0; done; return 1; }

user=kiln-test
work=$(mktemp -d "${KILN_TEST_TMP:-/var/tmp}/kiln-test.XXXXXX") || exit 1
chmod 755 "$work"
logs=$top/target/test-logs
mkdir -p "$logs"
skips=$work/skips
: > "$skips"
# What the failed ones said: shown once more at the very end, where someone who sees only the end of a log needs it.
details=$work/details
: > "$details"
passed=0 failed=0 skipped=0
failures=()
# `SECONDS NAME` of everything that was run.
spent=$work/spent

cleanup() {
  # What an ordinary user's store left behind may belong to that user's sub-ids: root may remove it, others leave it to
  # the tests, which remove their own.
  rm -rf "$work" 2>/dev/null || true
}
trap cleanup EXIT

# Runs one command as one check; its output goes to a log and, when it fails, to the terminal.
check() { # NAME COMMAND...
  local name=$1 began=$SECONDS code
  shift
  say "$name"
  "$@" > "$logs/$name.log" 2>&1
  code=$?
  took "$name" "$began"
  if [ "$code" = 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    failures+=("$name (log: $logs/$name.log)")
    tail -n 60 "$logs/$name.log" | detail "$name" >&2
    return 1
  fi
}

# Notes how long something took that began at a value of SECONDS.
took() { # NAME BEGAN
  echo "$((SECONDS - $2)) $1" >> "$spent"
}

# Shows what a failed check said, and keeps the beginning of it for the summary.
detail() { # NAME
  local text
  text=$(cat)
  printf '%s\n' "$text"
  { say "$1 said:" 2>&1; head -n 40 <<< "$text" | cut -c 1-1000; } >> "$details"
}

# Leaves something out, and says so.
skip() { # NAME REASON
  say "SKIPPED: $1: $2"
  echo "$1: $2" >> "$skips"
}

# Runs tests whose output ends in `test result: … passed; … failed; … ignored`, or in nextest's summary, and counts them.
tests() { # NAME COMMAND...
  local name=$1 log=$logs/$1.log code counted_failed began=$SECONDS
  shift
  say "$name"
  "$@" 2>&1 | tee "$log" | grep --line-buffered -E '^(test .*(FAILED|ignored)|SKIPPED|test result|  *(FAIL|Summary|TRY) )'
  code=${PIPESTATUS[0]}
  took "$name" "$began"
  local now_passed now_failed printed_skips
  now_passed=$(sum "$log" passed)
  counted_failed=$(sum "$log" failed)
  # A unit test that cannot run here passes, and prints a line that begins with SKIPPED.
  if [ "${name%%-*}" = unit ]; then
    printed_skips=$(grep -cE '^ *SKIPPED' "$log")
    grep -E '^ *SKIPPED' "$log" | sed "s/^ */$name: /" >> "$skips"
    now_passed=$((now_passed - printed_skips))
  fi
  now_failed=$counted_failed
  if [ "$code" != 0 ] && [ "$now_failed" = 0 ]; then now_failed=1; fi
  if [ "$code" = 0 ] && [ $((now_passed + $(grep -cE 'ignored|SKIPPED' "$log"))) = 0 ]; then
    say "$name ran no test"
    now_failed=1
  fi
  passed=$((passed + now_passed))
  failed=$((failed + now_failed))
  if [ "$now_failed" != 0 ]; then
    failures+=("$name: $now_failed failed, exit code $code (log: $log)")
    { sed -n '/^failures:/,$p' "$log" | head -n 400 | grep . || tail -n 60 "$log"; } | detail "$name" >&2
  fi
}

# Sums up `N passed` (or `N failed`) over the summary lines of a log.
sum() { # LOG WORD
  grep -E '^(test result:|  *Summary )' "$1" | grep -oE "[0-9]+ $2" | awk '{ total += $1 } END { print total + 0 }'
}

# One line for each reason, with the first of the tests that it holds for: `NAME: REASON` lines become `REASON: NAME, NAME`.
# Every single one was told by a line that begins with SKIPPED.
group_skips() {
  awk '{
    # The name of an end-to-end test has its pass in front of it, which ends in a colon, too.
    split_at = match($0, /^(root|user): /) ? RLENGTH : 0
    rest = substr($0, split_at + 1)
    colon = index(rest, ": ")
    name = substr($0, 1, split_at) substr(rest, 1, colon - 1)
    reason = substr(rest, colon + 2)
    if (!(reason in names)) { order[++count] = reason; names[reason] = name }
    else if (times[reason] < 12) names[reason] = names[reason] ", " name
    else if (times[reason] == 12) names[reason] = names[reason] ", ..."
    times[reason]++
  } END {
    for (at = 1; at <= count; at++) printf "  %d skipped: %s: %s\n", times[order[at]], order[at], names[order[at]]
  }'
}

# --- what is needed
command -v cargo >/dev/null || die "cargo is not on the PATH; install Rust first: https://rustup.rs"
if [ "$install" = yes ]; then
  began=$SECONDS
  need_packages build-essential ca-certificates
  if wanted e2e-root || wanted e2e-user || wanted unit; then
    need_packages git openssh-client e2fsprogs busybox-static mmdebstrap debian-archive-keyring uidmap attr bzip2 xz-utils zstd util-linux
    want_packages docker-registry skopeo umoci crun buildah podman qemu-user-static
    want_packages python3-jsonschema golang-github-opencontainers-image-spec-dev
    # The page of `builds show --html` is looked at in a real browser.
    want_packages chromium
  fi
  if wanted fmt || wanted clippy; then
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
      rustup component add rustfmt clippy || die "rustfmt and clippy are needed: rustup component add rustfmt clippy"
  fi
  took "installing packages and tools" "$began"
fi

# --- checks
if wanted fmt; then check fmt cargo fmt --all --check; fi
if wanted clippy; then check clippy cargo clippy --workspace --all-targets --locked -- -D warnings; fi
# The fuzz targets are a workspace of their own, which nothing else compiles.
if wanted clippy; then check fuzz-targets env RUSTFLAGS= cargo check --locked --bins --manifest-path fuzz/Cargo.toml; fi
if wanted doc; then RUSTDOCFLAGS='-D warnings' check doc cargo doc --workspace --no-deps --locked; fi

if wanted deny; then
  if ! cargo deny --version >/dev/null 2>&1 && [ "$install" = yes ]; then
    say "installing cargo-deny (this takes some minutes)"
    began=$SECONDS
    cargo install --locked cargo-deny > "$logs/cargo-deny-install.log" 2>&1 || tail -n 5 "$logs/cargo-deny-install.log" >&2
    took "installing cargo-deny" "$began"
  fi
  if cargo deny --version >/dev/null 2>&1; then
    check deny cargo deny --all-features check bans licenses sources
    if cargo deny fetch db > "$logs/deny-fetch.log" 2>&1; then
      check deny-advisories cargo deny --all-features check advisories
    else
      skip deny-advisories "the advisory database cannot be fetched; known vulnerabilities were NOT looked for"
    fi
  else
    skip deny "cargo-deny is not here"
    skip deny-advisories "cargo-deny is not here; known vulnerabilities were NOT looked for"
  fi
fi

# --- unit tests
if wanted unit; then
  if cargo nextest --version >/dev/null 2>&1; then
    tests unit cargo nextest run --workspace --exclude kiln-e2e --locked --no-fail-fast --success-output immediate
    tests unit-doc cargo test --workspace --exclude kiln-e2e --locked --doc --no-fail-fast
  else
    tests unit cargo test --workspace --exclude kiln-e2e --locked --no-fail-fast -- --show-output
  fi
  tests unit-e2e-helpers cargo test -p kiln-e2e --locked --lib
fi

# --- end-to-end tests
# The binaries and the data are put where another user can read them; a checkout below /root is not.
prepare_end_to_end() {
  local stage=$work/stage line
  # The folder's name tells the tests that the binary is not optimized.
  mkdir -p "$stage/tests" "$stage/debug" "$stage/e2e"
  say "building kiln and the end-to-end tests"
  cargo build --locked -p kiln-cli > "$logs/build.log" 2>&1 || { tail -n 40 "$logs/build.log" >&2; return 1; }
  cp "$(cargo build --locked -p kiln-cli --message-format json 2>/dev/null |
    sed -n 's/.*"name":"kiln".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)" "$stage/debug/kiln" || return 1
  cargo test --locked -p kiln-e2e --tests --no-run --message-format json 2> "$logs/build-e2e.log" > "$work/messages" ||
    { tail -n 40 "$logs/build-e2e.log" >&2; return 1; }
  while read -r line; do
    # target/debug/deps/NAME-HASH
    cp "$line" "$stage/tests/$(basename "$line" | sed 's/-[0-9a-f]*$//')" || return 1
  done < <(sed -n 's/.*"kind":\["test"\].*"executable":"\([^"]*\)".*/\1/p' "$work/messages")
  cp -r testdata scripts docs "$stage/" || return 1
  cp -r e2e/tests "$stage/e2e/" || return 1
  "$here/make-base-images.sh" --tars-only --cache "${KILN_BASE_CACHE:-$top/target/base-images}" || return 1
  # What needs it is skipped without it, and says so.
  "$here/make-base-images.sh" --tars-only --cache "${KILN_BASE_CACHE:-$top/target/base-images}" busybox-arm64 ||
    skip base-images "busybox for arm64 cannot be made; tests that run its programs will be skipped"
  mkdir -p "$stage/bases"
  cp "${KILN_BASE_CACHE:-$top/target/base-images}"/*.{tar,changes} "$stage/bases/" || return 1
  chmod -R u=rwX,go=rX "$stage"
}

# Runs every end-to-end test binary, as this user or as another.
end_to_end() { # PASS [COMMAND that becomes another user]
  local pass=$1 test name patience
  shift
  local temporary=$work/tmp-$pass
  mkdir -p "$temporary"
  [ $# -eq 0 ] || chown "$user:" "$temporary"
  touch "$skips.$pass"
  chmod 666 "$skips.$pass"
  for test in "$work"/stage/tests/*; do
    name=$(basename "$test")
    local threads=()
    # These measure how long things take, or count what is left on the machine.
    case $name in robustness|registry) threads=(--test-threads 1) ;; esac
    # Most of these wait for a server that is slow on purpose.
    case $name in hostile_registry) threads=(--test-threads 6) ;; esac
    case $name in projects) patience=7200 ;; *) patience=1800 ;; esac
    # Reading a hostile file is the same for every user, and takes minutes: once is enough.
    if [ "$name" = hostile ] && [ "$pass" = user ] && [ "$(id -u)" = 0 ]; then continue; fi
    tests "$pass-$name" timeout "$patience" "$@" env -u XDG_RUNTIME_DIR \
      KILN_BIN="$work/stage/debug/kiln" KILN_E2E_CHECKOUT="$work/stage" KILN_E2E_BASES="$work/stage/bases" \
      KILN_E2E_TMP="$temporary" KILN_E2E_SKIPS="$skips.$pass" "$test" "${threads[@]}"
  done
  sed "s/^/$pass: /" "$skips.$pass" >> "$skips"
}

if wanted e2e-root || wanted e2e-user; then
  began=$SECONDS
  prepare_end_to_end
  prepared=$?
  took "preparing the end-to-end tests" "$began"
  if [ "$prepared" = 0 ]; then
    if [ "$(id -u)" = 0 ]; then
      if wanted e2e-root; then end_to_end root; fi
      if wanted e2e-user; then
        # useradd gives every new user a range of sub-ids.
        id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
        grep -q "^$user:" /etc/subuid || usermod --add-subuids 1000000-1065535 --add-subgids 1000000-1065535 "$user"
        end_to_end user runuser -u "$user" --
      fi
    else
      if wanted e2e-root; then skip e2e-root "not root; run scripts/test.sh as root for this pass"; fi
      if wanted e2e-user; then end_to_end user; fi
    fi
  else
    failed=$((failed + 1))
    failures+=("the end-to-end tests could not be prepared (logs: $logs)")
  fi
fi

# --- summary
say "$SECONDS seconds in all; what took longest:"
sort -rn "$spent" | head -n 15 | sed 's/^/  /'
skipped=$(wc -l < "$skips")
if [ "$skipped" != 0 ]; then
  say "skipped:"
  group_skips < "$skips"
fi
if [ ${#failures[@]} -gt 0 ]; then
  cat "$details"
  say "failed:"
  printf '  %s\n' "${failures[@]}"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
