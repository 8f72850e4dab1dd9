#!/usr/bin/env bash
# Builds the libFuzzer targets (clang, ASan, UBSan) and runs each for SECONDS. Findings are left in build/fuzz/findings
# and make the exit code 1.
# Usage: scripts/fuzz.sh [SECONDS [TARGET...]]      defaults: 10 seconds, all targets
# NIBBLE_FUZZ_PRESET=dev uses the targets that the dev build has anyway, instead of a build of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
shift || true

preset=${NIBBLE_FUZZ_PRESET:-fuzz}
cmake --preset "$preset" >/dev/null
folder=build/$preset/tests/fuzz
targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
  for seeds in "$folder"/*.seeds; do targets+=("$(basename "$seeds" .seeds)"); done
fi
cmake --build "build/$preset" --target "${targets[@]/#/nibble_fuzz_}"

mkdir -p build/fuzz/findings
failed=0
for target in "${targets[@]}"; do
  corpus=build/fuzz/corpus/$target # grows from run to run
  mkdir -p "$corpus"
  seeds=()
  while read -r seed; do
    if [[ -d $seed ]]; then seeds+=("$seed"); fi
  done <"$folder/$target.seeds"
  echo "== $target: $seconds s"
  if ! "$folder/nibble_fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
    -print_final_stats=1 -verbosity=0 -artifact_prefix="build/fuzz/findings/$target-" "$corpus" "${seeds[@]}" 2>build/fuzz/log; then
    failed=1
    tail -40 build/fuzz/log
  fi
  grep -E "number_of_executed_units|peak_rss_mb" build/fuzz/log || true
done
exit $failed
