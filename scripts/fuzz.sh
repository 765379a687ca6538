#!/usr/bin/env bash
# Fuzzes the parsers of foreign bytes: scripts/fuzz.sh [SECONDS] [TARGET...]
#
# Builds every target (or those named) with the stable compiler and runs one after the other for SECONDS (600). The
# corpus that grows is fuzz/corpus/TARGET, inputs that broke something are in fuzz/artifacts/TARGET. Ends with 1 when a
# target found something. CARGO_TARGET_DIR names another place for the build.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=600
if [[ ${1-} =~ ^[0-9]+$ ]]; then
  seconds=$1
  shift
fi

# Lets the stable compiler take the sanitizers' flags.
export RUSTC_BOOTSTRAP=1
# cargo-fuzz sets RUSTFLAGS, which replaces the static linking of .cargo/config.toml: the sanitizers need a dynamic C
# library. What is set here it would only add to.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS

if ! cargo fuzz --version >/dev/null 2>&1; then
  env -u RUSTC_BOOTSTRAP cargo install cargo-fuzz --locked
fi

if [[ $# -gt 0 ]]; then
  targets=("$@")
else
  mapfile -t targets < <(cargo fuzz list)
fi
target_dir=${CARGO_TARGET_DIR:-fuzz/target}

largest() { # the largest input worth trying
  case $1 in
    reference | challenges) echo 4096 ;;
    expand | ignorefile) echo 8192 ;;
    *) echo 65536 ;;
  esac
}

failed=()
for target in "${targets[@]}"; do
  cargo fuzz build --target-dir "$target_dir" "$target"
done
for target in "${targets[@]}"; do
  mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
  echo "== $target: $seconds s"
  cargo fuzz run --target-dir "$target_dir" "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -max_len="$(largest "$target")" -rss_limit_mb=2048 -timeout=10 \
    -report_slow_units=10 -print_final_stats=1 || failed+=("$target")
done
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "found something: ${failed[*]}; see fuzz/artifacts" >&2
  exit 1
fi
