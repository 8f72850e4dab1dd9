#!/usr/bin/env bash
# Runs the commands of docs/guide.md (lines "$ ..." of its console blocks) in a temporary folder that has the repository's
# models/ and tests/, and compares what they print with what stands there. Blocks marked "console any" print what depends
# on the machine (generated text): their commands must only succeed.
#   tools/check_guide.sh BUILD_DIR             exit code 1 and a diff when something differs
#   tools/check_guide.sh BUILD_DIR --update    writes what is printed into docs/guide.md
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
update=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/run"
ln -s "$source_dir/models" "$source_dir/tests" "$work/run/"
export PATH=$build:$build/examples:$PATH

# Prints the guide with every output replaced; $1: a file that gets the commands that failed.
fresh_guide() {
  local in_block='' line command
  while IFS= read -r line; do
    if [[ -n $in_block && $line == '```' ]]; then
      in_block=''
    elif [[ $line == '```console'* ]]; then
      in_block=$line
    elif [[ -n $in_block && $line == '$ '* ]]; then
      printf '%s\n' "$line"
      command=${line:2}
      while [[ $line == *\\ ]] && IFS= read -r line; do
        printf '%s\n' "$line"
        command=${command%\\}$line
      done
      (cd "$work/run" && bash -o pipefail -c "$command" </dev/null 2>&1) >"$work/output" || echo "$command" >>"$1"
      sed "s|$work/run/||g; s|$source_dir/||g; s|[[:space:]]*$||" "$work/output"
      continue
    elif [[ -n $in_block ]]; then
      continue  # the output that stands there
    fi
    printf '%s\n' "$line"
  done <"$source_dir/docs/guide.md"
}

# What may differ between machines, left out.
comparable() {
  awk '/^```console any/ { any = 1 } /^```$/ { any = 0 } !any || /^[`$]/' "$1" | sed -E 's/^(tokens|logits .*):.*/\1:/'
}

fresh_guide "$work/failed" >"$work/guide.md"
if [[ -s $work/failed ]]; then
  echo "these commands of docs/guide.md failed:"
  cat "$work/failed" "$work/guide.md"
  exit 1
fi
if [[ $update == --update ]]; then
  cp "$work/guide.md" "$source_dir/docs/guide.md"
else
  diff <(comparable "$source_dir/docs/guide.md") <(comparable "$work/guide.md")
fi
