#!/usr/bin/env python3
"""Encoding speed of nibble against the Rust `tokenizers` package on one thread, interleaved.

  tools/tokenizer_speed.py build/bench/bench/nibble_tokenizer_bench TEXT MODEL... [--rounds 5]

Needs Python with `tokenizers` (a throw-away environment). Both encode the whole text in one call, with special tokens
in it parsed and BOS added; the package is timed through encode() and through encode_batch_fast() (no offsets), and the
faster of its two medians counts.
"""
import argparse
import os
import statistics
import subprocess
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer  # noqa: E402


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench")
    parser.add_argument("text")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with open(options.text, encoding="utf-8", newline="") as f:
        text = f.read()
    size = len(text.encode()) / 1e6
    print(f"| tokenizer | tokens | nibble s | MB/s | tokenizers s | MB/s | ratio |\n|---|---|---|---|---|---|---|")
    for model in options.models:
        ours, plain, fast = [], [], []
        for _ in range(options.rounds):
            out = subprocess.run([options.bench, model, options.text, "1"], capture_output=True, check=True, text=True).stdout
            ours.append(float(out.split("encode ")[1].split()[0]))
            tokens = int(out.split("tokens ")[1].split()[0])
            tokenizer = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
            seconds, encoding = timed(lambda: tokenizer.encode(text))
            plain.append(seconds)
            tokenizer = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
            seconds, _ = timed(lambda: tokenizer.encode_batch_fast([text]))
            fast.append(seconds)
            assert len(encoding.ids) == tokens, (len(encoding.ids), tokens)
        mine, theirs = statistics.median(ours), min(statistics.median(plain), statistics.median(fast))
        print(f"| {os.path.basename(model)} | {tokens} | {mine:.3f} | {size / mine:.1f} | {theirs:.3f} | {size / theirs:.1f} | {theirs / mine:.1f} x |", flush=True)


if __name__ == "__main__":
    main()
