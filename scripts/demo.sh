#!/usr/bin/env bash
# Shows nibble at work on the model that lies in this repository: builds it, quantizes the model to 8, 4 and 2 bits and
# with GPTQ, compares size, perplexity and speed with bf16, and lets each write a few words. Debian 12, as root or with sudo.
#   scripts/demo.sh [FOLDER]     FOLDER keeps the quantized models (default: out/demo)
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-out/demo}
model=models/demo
text=$model/eval.txt
log=$(mktemp)
trap 'rm -f "$log"' EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 && -z "${NO_COLOR:-}" ]] || say() { printf '\n%s\n' "$*"; }
# quietly COMMAND...: shows the output only when the command fails
quietly() { "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }; }
# field KEY: the first number under KEY in the JSON on standard input
field() { sed -n "s/^ *\"$1\": \([-0-9.e+]*\),*$/\1/p" | head -n 1; }

say "1. Build"
scripts/install_deps.sh
quietly cmake --preset release
quietly cmake --build --preset release --target nibble -j "$(nproc)"
nibble=$PWD/build/release/nibble
"$nibble" --version | head -n 1

say "2. Quantize $model (6.8 M parameters, trained by this project; it babbles, but it is a real model)"
mkdir -p "$out"
all=(bf16 int8 int4 int2 gptq-rtn gptq)
declare -A bits size
bits[bf16]=16
size[bf16]=$(stat -c %s "$model/model.safetensors")
for weights in int8 int4 int2; do
  echo "nibble quantize $model -o $out/$weights --weights $weights"
  json=$("$nibble" quantize "$model" -o "$out/$weights" --weights $weights --force --json)
  bits[$weights]=$(field bits_per_weight <<<"$json")
  size[$weights]=$(stat -c %s "$out/$weights/model.safetensors")
done

# The same format twice: every weight rounded on its own, and rounding errors made up for on calibration data.
gptq=(--method gptq --bits 4 --group-size 64 --asym)
data=(--dataset $model/calibration_ids.json --samples 16 --seqlen 512)
for weights in gptq-rtn gptq; do
  flags=("${gptq[@]}" --algorithm rtn)
  [[ $weights == gptq ]] && flags=("${gptq[@]}" --refine 4 "${data[@]}")
  echo "nibble quantize $model -o $out/$weights ${flags[*]}"
  json=$("$nibble" quantize "$model" -o "$out/$weights" "${flags[@]}" --force --json)
  bits[$weights]=$(field bits_per_weight <<<"$json")
  size[$weights]=$(stat -c %s "$out/$weights/model.safetensors")
done

say "3. Measure (perplexity of $text, 168 windows of 512 tokens; speed on $(nproc) threads)"
declare -A ppl error kl top prompt generate
for weights in "${all[@]}"; do
  folder=$out/$weights
  [[ $weights == bf16 ]] && folder=$model
  [[ -t 2 ]] && printf '%s ...\r' "$weights" >&2
  json=$("$nibble" perplexity "$folder" -f "$text" --protocol gptq --ctx 512 --kl-base "$model" --json)
  ppl[$weights]=$(field ppl <<<"$json")
  error[$weights]=$(field stderr <<<"$json")
  kl[$weights]=$(field kl <<<"$json")
  top[$weights]=$(field same_top <<<"$json")
  prompt[$weights]=$("$nibble" bench "$folder" -p 512 -n 0 -r 3 -o json | field avg_ts)
  generate[$weights]=$("$nibble" bench "$folder" -p 0 -n 128 -r 3 -o json | field avg_ts)
done

number() { LC_ALL=C printf "%$1" "$2"; }
echo "| weights  | file MB | bits/weight | perplexity      | KL to bf16 | same top token | prompt t/s | generation t/s |"
echo "|----------|--------:|------------:|----------------:|-----------:|---------------:|-----------:|---------------:|"
for weights in "${all[@]}"; do
  echo "| $(number -8s $weights)" \
    "| $(awk -v b="${size[$weights]}" 'BEGIN { printf "%7.2f", b / 1e6 }')" \
    "| $(number 11.2f "${bits[$weights]}")" \
    "| $(number 7.2f "${ppl[$weights]}") +/- $(number 3.2f "${error[$weights]}")" \
    "| $(number 10.4f "${kl[$weights]}")" \
    "| $(awk -v p="${top[$weights]}" 'BEGIN { printf "%12.1f %%", 100 * p }')" \
    "| $(number 10.0f "${prompt[$weights]}") | $(number 14.0f "${generate[$weights]}") |"
done
echo "bits/weight counts the quantized linear layers with their scales; embeddings and the output head stay in bf16."
echo "gptq-rtn and gptq are both GPTQ checkpoints of 4 bits: rounded to nearest, and chosen with calibration data."

say "4. Generate (greedy, 40 tokens)"
for weights in "${all[@]}"; do
  folder=$out/$weights
  [[ $weights == bf16 ]] && folder=$model
  printf '%-8s ' "$weights"
  "$nibble" run "$folder" -p "Once upon a time" -n 40 --greedy --echo 2>/dev/null | tr '\n' ' '
  echo
done

say "The models are in $out. Try:  build/release/nibble run $out/int4 -p 'The history of'"
