#!/bin/bash
# Fuzzes everything that parses foreign bytes; see fuzz/README.md.
#
# Usage: scripts/fuzz.sh [SECONDS] [TARGET ...]
#   SECONDS   how long each target runs    (default: 600)
#   TARGET    only these                   (default: all)
#
# Installs cargo-fuzz when it is missing, builds with the stable compiler, and runs one target after the other. What the
# corpora grow to is kept in fuzz/corpus; inputs that break something are put into fuzz/artifacts, and then the exit code
# is 1. CARGO_TARGET_DIR names another folder for the build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$(top_folder)"

seconds=600
case ${1-} in
  -h|--help) sed -n '2,/^set -e/p' "${BASH_SOURCE[0]}" | sed -e '$d' -e 's/^# \{0,1\}//'; exit 0 ;;
  [0-9]*) seconds=$1; shift ;;
esac
[[ $seconds =~ ^[0-9]+$ ]] || die "no number of seconds: $seconds"

if ! cargo fuzz --version >/dev/null 2>&1; then
  say "installing cargo-fuzz"
  cargo install cargo-fuzz --locked
fi

# Lets the stable compiler take the sanitizers' flags.
export RUSTC_BOOTSTRAP=1
# cargo-fuzz sets RUSTFLAGS, which replaces the static linking of .cargo/config.toml: the sanitizers need a dynamic C
# library. To what is set here it would only add.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS

target_dir=${CARGO_TARGET_DIR:-fuzz/target}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)

largest_input() { # TARGET
  case $1 in
    reference|challenges) echo 4096 ;;
    expand|ignorefile) echo 8192 ;;
    *) echo 65536 ;;
  esac
}

for target in "${targets[@]}"; do
  cargo fuzz build --target-dir "$target_dir" "$target"
done
failed=()
for target in "${targets[@]}"; do
  say "$target: $seconds s"
  mkdir -p "fuzz/corpus/$target"
  cargo fuzz run --target-dir "$target_dir" "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -max_len="$(largest_input "$target")" -rss_limit_mb=2048 -timeout=10 \
    -report_slow_units=10 -print_final_stats=1 || failed+=("$target")
done
[ ${#failed[@]} -eq 0 ] || die "found something, see fuzz/artifacts: ${failed[*]}"
