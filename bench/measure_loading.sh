#!/bin/sh
# What loading costs: the first token's time with the checkpoint out of the page cache and in it, and the memory held.
#   bench/measure_loading.sh NIBBLE MODEL_FOLDER [TOKENS]
# TOKENS (default 1) ids go through one prefill; the time is the whole process, writing their logits included.
set -eu
nibble=$1 model=$2 tokens=${3:-1}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
awk -v n="$tokens" 'BEGIN { printf "{\"ids\": [["; for (i = 1; i <= n; ++i) printf "%s%d", (i > 1 ? ", " : ""), i; print "]]}" }' >"$dir/ids.json"
first_token() {
  start=$(date +%s.%N)
  "$nibble" logits "$model" --ids "$dir/ids.json" --out "$dir/out.safetensors"
  end=$(date +%s.%N)
  awk -v what="$1" -v a="$start" -v b="$end" 'BEGIN { printf "%-34s %7.2f s\n", what, b - a }'
}
bytes=$(cat "$model"/*.safetensors | wc -c)
awk -v b="$bytes" 'BEGIN { printf "%-34s %7.2f GB\n", "checkpoint", b / 1e9 }'
for file in "$model"/*.safetensors; do dd if="$file" iflag=nocache count=0 status=none; done
start=$(date +%s.%N)
cat "$model"/*.safetensors >/dev/null
end=$(date +%s.%N)
awk -v a="$start" -v b="$end" 'BEGIN { printf "%-34s %7.2f s\n", "page-in alone (cat)", b - a }'
for file in "$model"/*.safetensors; do dd if="$file" iflag=nocache count=0 status=none; done
first_token "first token, out of the page cache"
first_token "first token, in the page cache"
first_token "first token, in the page cache"
"$nibble" bench "$model" -p "$tokens" -n 0 -r 3
