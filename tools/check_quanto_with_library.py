#!/usr/bin/env python3
"""Proves with the real optimum-quanto that it loads what `nibble quantize` writes, and that the bytes are its own.

    python3 tools/check_quanto_with_library.py NIBBLE MODEL... [--ids N]

Needs torch, transformers, accelerate and optimum-quanto 0.2.7 in a throw-away environment; not part of the tests. For
every model folder, dtype and type of weights: quantize with nibble and with the library, compare all tensors byte by
byte, load nibble's folder with QuantizedModelForCausalLM, and compare its logits with those of the library's own model.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
import torch
import optimum.quanto as quanto
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
WEIGHTS = ["int8", "int4", "int2", "float8", "float8_e5m2"]


def qtype_of(weights):
    return quanto.qtypes["qfloat8_e4m3fn" if weights == "float8" else "q" + weights]


def read(folder):
    """name -> (dtype, shape, bytes) of all tensors of a folder."""
    out = {}
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".safetensors"):
            continue
        with safe_open(os.path.join(folder, name), "pt") as file:
            for key in file.keys():
                t = file.get_tensor(key)
                out[key] = (str(t.dtype), tuple(t.shape), t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return out


def compare(ours, theirs):
    """Names whose bytes differ, with the number of differing bytes; missing and extra names."""
    wrong = []
    for key in sorted(set(ours) | set(theirs)):
        if key not in ours or key not in theirs:
            wrong.append(key + (" missing" if key not in ours else " extra"))
        elif ours[key][:2] != theirs[key][:2]:
            wrong.append(f"{key} {ours[key][:2]} expected {theirs[key][:2]}")
        elif ours[key][2] != theirs[key][2]:
            wrong.append(f"{key} {sum(a != b for a, b in zip(ours[key][2], theirs[key][2]))} bytes")
    return wrong


def aligned(model):
    """torch's int8 CPU kernel needs 16-byte alignment, which mapped safetensors do not have."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        data = getattr(weight, "_data", None)
        if type(data) is torch.Tensor:
            weight._data = data.clone()
    return model


def logits(model, ids):
    with torch.no_grad():
        y = model(torch.tensor([ids])).logits
    return (y.dequantize() if isinstance(y, quanto.QTensor) else y).float()


def check(nibble, base, dtype, weights, flags, options, ids, work):
    ours, theirs = os.path.join(work, "ours"), os.path.join(work, "theirs")
    for folder in (ours, theirs):
        shutil.rmtree(folder, ignore_errors=True)
    run = subprocess.run([nibble, "quantize", base, "-o", ours, "--weights", weights, *flags], capture_output=True, text=True)
    if run.returncode != 0:
        return [f"nibble failed: {run.stderr.strip()}"], float("nan"), 0
    model = AutoModelForCausalLM.from_pretrained(base, dtype=DTYPES[dtype]).eval()
    library = quanto.QuantizedModelForCausalLM.quantize(model, weights=qtype_of(weights), **options)
    library.save_pretrained(theirs)
    stored, expected = read(ours), read(theirs)
    wrong = compare(stored, expected)
    maps = [json.load(open(os.path.join(f, "quanto_qmap.json"))) for f in (ours, theirs)]
    if maps[0] != maps[1]:
        wrong.append("quanto_qmap.json differs")
    loaded = quanto.QuantizedModelForCausalLM.from_pretrained(ours, dtype=DTYPES[dtype])
    reloaded = quanto.QuantizedModelForCausalLM.from_pretrained(theirs, dtype=DTYPES[dtype])
    difference = (logits(aligned(loaded), ids) - logits(aligned(reloaded), ids)).abs().max().item()
    return wrong, difference, len(expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nibble")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--ids", type=int, default=24)
    parser.add_argument("--dtypes", default="bf16,f16,f32")
    args = parser.parse_args()
    failed = 0
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, optimum-quanto {quanto.__version__}")
    for folder in args.models:
        with tempfile.TemporaryDirectory() as work:
            for dtype in args.dtypes.split(","):
                base = os.path.join(work, dtype)
                model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype])
                ids = [(7 * i + 3) % model.config.vocab_size for i in range(args.ids)]
                model.save_pretrained(base)
                del model
                cases = [(w, "lm_head", ["--quantize-lm-head"], {}) for w in WEIGHTS]
                cases += [(w, "head kept", [], {"exclude": "lm_head"}) for w in ("int8", "int4")]
                cases += [("int4", "hqq", ["--quantize-lm-head", "--optimizer", "hqq"], {"optimizer": quanto.HqqOptimizer()})]
                cases += [("int2", "hqq", ["--quantize-lm-head", "--optimizer", "hqq"], {"optimizer": quanto.HqqOptimizer()})]
                for weights, label, flags, options in cases:
                    wrong, difference, count = check(args.nibble, base, dtype, weights, flags, options, ids, work)
                    good = not wrong and difference == 0
                    failed += not good
                    print(f"{'ok  ' if good else 'FAIL'} {os.path.basename(folder.rstrip('/'))} {dtype} {weights} {label}: "
                          f"{count} tensors, {len(wrong)} differ, logits differ by {difference:.3g}", flush=True)
                    for line in wrong[:5]:
                        print("       ", line)
    print("ALL OK" if failed == 0 else f"{failed} FAILED")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
