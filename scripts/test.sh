#!/usr/bin/env bash
# Everything that must hold before a change lands: installs what is missing, builds with clang in release mode and runs all tests.
#   scripts/test.sh          release build, all tests (a few minutes)
#   scripts/test.sh --full   the same, then g++, ASan + UBSan, TSan and a short run of every fuzzer (what CI does)
set -euo pipefail
cd "$(dirname "$0")/.."

full=no
[[ "${1:-}" == "--full" ]] && full=yes
if [[ $full == yes ]]; then scripts/install_deps.sh --all; else scripts/install_deps.sh; fi

jobs=$(nproc)
step() { printf '\n== %s (%(%H:%M:%S)T)\n' "$*" -1; }

# A preset's build (all targets, or those named after --target); on a terminal ninja shows its own progress, in a log only what matters.
build() {
  cmake --preset "$1" >"build-$1.log" 2>&1 || { cat "build-$1.log"; return 1; }
  cmake --build --preset "$1" -j "$jobs" "${@:2}" >"build-$1.log" 2>&1 || { tail -n 60 "build-$1.log"; return 1; }
  rm -f "build-$1.log"
}
tests() { ctest --preset "$1" -j "$jobs" --progress "${@:2}"; }

if [[ $full == yes ]]; then
  step "formatting"
  git ls-files '*.cc' '*.h' | xargs clang-format --dry-run --Werror
  step "g++: builds without a warning"
  build gcc
  step "ASan and UBSan, with the fuzzers"
  build dev
  # Of the products, the small shapes, and not the guide's commands, whose examples are tests of their own: the rest takes
  # minutes each here, and runs in the release build.
  tests dev -LE "long|timing" -E "ProductsAreWithinTheBoundOfTheirSums/\((33|40|5|16),|^guide$"
  step "TSan"
  build tsan --target nibble nibble_base_test nibble_device_test nibble_layout_test nibble_calib_test nibble_run_test
  tests tsan -R "^(base.ThreadPool|device|layout.*(OneToken|Affine|LlmInt8|Dense)|calib|run.*Threads)"
  step "fuzzers, a few seconds each"
  NIBBLE_FUZZ_PRESET=dev scripts/fuzz.sh 10
fi

step "release build with clang"
build release
step "tests"
tests release -LE long
