#!/usr/bin/env python3
"""Perplexities of a model under every protocol of `nibble perplexity`, from Transformers and NumPy alone: an independent
second reading of the protocols' definitions. Prints one JSON object; with --nibble PROGRAM it also runs nibble and
prints both figures side by side, exit code 1 when one differs by more than 0.1 %.

  tools/check_perplexity.py models/demo models/demo/eval.txt --ctx 512 [--bytes 20000] [--nibble build/release/nibble]
"""
import argparse
import json
import math
import re
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("file")
parser.add_argument("--ctx", type=int, default=512)
parser.add_argument("--bytes", type=int, default=0, help="use only the first bytes of the file")
parser.add_argument("--nibble")
args = parser.parse_args()
torch.set_num_threads(1)

tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
text = open(args.file, encoding="utf-8").read()
if args.bytes:
    text = text.encode()[: args.bytes].decode("utf-8", "ignore")
ctx = args.ctx


def losses(ids):
    """Negative log likelihood of ids[1:], in f64."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].numpy().astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    lse = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    return lse[:-1] - logits[np.arange(len(ids) - 1), ids[1:]]


def gptq(ids):
    nlls = [losses(ids[i : i + ctx]).mean() * ctx for i in range(0, len(ids) - ctx + 1, ctx)]
    return math.exp(sum(nlls) / (len(nlls) * ctx))


def second_half(ids, bos):
    total, count = 0.0, 0
    for i in range(0, len(ids) - ctx + 1, ctx):
        window = [bos] + ids[i + 1 : i + ctx]
        kept = losses(window)[ctx // 2 :]
        total += kept.sum()
        count += len(kept)
    return math.exp(total / count)


def hf_stride(ids, stride):
    nll_sum, n_tokens, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + ctx, len(ids))
        fresh = end - previous
        mean = losses(ids[begin:end])[-fresh:].mean()
        nll_sum += mean * (fresh - 1)
        n_tokens += fresh - 1
        previous = end
        if end == len(ids):
            break
    return math.exp(nll_sum / n_tokens)


def lm_eval(ids, prefix):
    total, done = 0.0, 0
    while done < len(ids):
        fresh = min(ctx, len(ids) - done)
        if done == 0:
            window = [prefix] + ids[:fresh]
        else:
            window = ids[done + fresh - ctx - 1 : done + fresh] if done + fresh > ctx else [prefix] + ids[: done + fresh]
        total += losses(window)[-fresh:].sum()
        done += fresh
    words = len(re.split(r"\s+", text))
    return math.exp(total / words), math.exp(total / len(text.encode())), total / len(text.encode()) / math.log(2)


ids = tokenizer(text).input_ids
bare = tokenizer(text, add_special_tokens=False).input_ids
bos = tokenizer.bos_token_id
word, byte, bits = lm_eval(bare, bos if bos is not None else tokenizer.eos_token_id)
result = {
    "gptq": gptq(ids),
    "llama.cpp": second_half(ids, bos),
    "autogptq": second_half(ids, bos),
    "hf-stride": hf_stride(ids, ctx // 2),
    "lm-eval": word,
}
if not args.nibble:
    print(json.dumps({**result, "byte_perplexity": byte, "bits_per_byte": bits}, indent=2))
    sys.exit(0)

worst = 0.0
with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as part:
    part.write(text)
    part.flush()
    for protocol, expected in result.items():
        command = [args.nibble, "perplexity", args.model, "-f", part.name, "--protocol", protocol, "--ctx", str(ctx)]
        command += ["--dtype", "f32", "--json"] + (["--stride", str(ctx // 2)] if protocol == "hf-stride" else [])
        got = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        error = abs(got["ppl"] / expected - 1)
        worst = max(worst, error)
        print(f"{protocol:10} Transformers {expected:14.6f}   nibble {got['ppl']:14.6f}   difference {100 * error:.6f} %")
        if protocol == "lm-eval":
            print(f"{'':10} bits_per_byte {bits:.8f} and {got['bits_per_byte']:.8f}")
sys.exit(worst > 1e-3)
