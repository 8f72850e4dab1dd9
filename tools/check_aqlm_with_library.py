#!/usr/bin/env python3
"""Proves that the aqlm package and Transformers load what `nibble quantize --method aqlm` writes.

    NUMBA_NUM_THREADS=1 python3 tools/check_aqlm_with_library.py NIBBLE MODEL [--aqlm 2x8 ...]

Not part of the tests: needs torch, transformers, aqlm 1.1.7 and numba in a throw-away environment (one thread, because
aqlm's CPU kernel has a data race). Quantizes the float MODEL with each shape, loads the folder exactly as it lies there,
and compares logits in f32 with those of `nibble logits --dtype f32`; every linear of the blocks must have become a
QuantizedLinear, and lm_head must not.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
import aqlm
import torch
import transformers
from importlib.metadata import version
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
IDS = [[1, 17, 300, 5, 44, 230, 9, 12], [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]]


def nibble(*words):
    run = subprocess.run([args.nibble, *words], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"nibble {' '.join(words)}: {run.stderr}")


@torch.no_grad()
def check(shape, group, temp):
    out, ids, logits = (os.path.join(temp, name) for name in ("out", "ids.json", "logits.safetensors"))
    nibble("quantize", args.model, "-o", out, "--method", "aqlm", "--aqlm", shape, "--in-group-size", group, "--preset", "fast",
           "--dataset", "builtin", "--samples", "8", "--seqlen", "64", "--include", args.include)
    with open(ids, "w") as file:
        json.dump({"ids": IDS}, file)
    nibble("logits", out, "--ids", ids, "-o", logits, "--dtype", "f32")
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()
    quantized = [name for name, module in model.named_modules() if isinstance(module, aqlm.QuantizedLinear)]
    stored = [name[:-6] for name in load_file(os.path.join(out, "model.safetensors")) if name.endswith(".codes")]
    ours = load_file(logits)
    theirs = [model(torch.tensor([row])).logits[0] for row in IDS]
    worst = max(float((ours[f"logits.{i}"] - theirs[i]).abs().max()) for i in range(len(IDS)))
    largest = max(float(t.abs().max()) for t in theirs)
    ok = sorted(quantized) == sorted(stored) and worst < 1e-4 * largest
    print(f"{'ok  ' if ok else 'FAIL'} {shape} g{group}: {len(quantized)} of {len(stored)} linears quantized; aqlm {version('aqlm')} "
          f"through transformers {transformers.__version__}: largest difference of logits {worst:.2g} (up to {largest:.3g})", flush=True)
    return ok


parser = argparse.ArgumentParser()
parser.add_argument("nibble")
parser.add_argument("model")
parser.add_argument("--aqlm", nargs="+", default=["2x8:8", "1x12:8", "4x8:16", "1x16:8"], help="KxN:in_group_size")
parser.add_argument("--include", default="model.layers.[01].*", help="modules to quantize; the rest stays in floats")
args = parser.parse_args()
good = True
for item in args.aqlm:
    with tempfile.TemporaryDirectory() as temp:
        good = check(*item.split(":"), temp) and good
sys.exit(not good)
