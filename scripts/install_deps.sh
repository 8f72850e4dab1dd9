#!/usr/bin/env bash
# Installs with apt what nibble needs to build and test on Debian 12 and what is not there yet. Root, or a user with sudo.
set -euo pipefail

packages=(
  build-essential clang lld cmake ninja-build pkg-config git ca-certificates
  libhwy-dev libdnnl-dev ocl-icd-opencl-dev libsimdjson-dev libcli11-dev libpcre2-dev libicu-dev libzip-dev libsentencepiece-dev libssl-dev
  libgtest-dev libbenchmark-dev
)
# Only for the checks of CI: sanitizers and fuzzers, formatting, linting, a compiler cache.
if [[ "${1:-}" == "--all" ]]; then
  packages+=(libclang-rt-14-dev clang-format clang-tidy ccache)
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ "$status" == installed ]] || missing+=("$package")
done
((${#missing[@]} == 0)) && exit 0

run=()
if ((EUID != 0)); then
  command -v sudo >/dev/null || { echo "install_deps: not root and no sudo; please install: ${missing[*]}" >&2; exit 1; }
  run=(sudo)
fi
echo "Installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${run[@]}" apt-get update -qq
"${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
