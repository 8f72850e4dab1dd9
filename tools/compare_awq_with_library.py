#!/usr/bin/env python3
"""Quantizes a model with AutoAWQ and with nibble, with the same calibration tokens, and compares the results.

    python3 tools/compare_awq_with_library.py NIBBLE MODEL IDS EVAL_TEXT OUT [--groups 128 64] [--samples 128] [--chunks N]

Not part of the tests: needs torch and autoawq 0.2.9 under transformers 4.51.3. IDS is a .json {"ids": [[...]]}. Both
results stay in OUT. Prints seconds, and perplexity and KL divergence from MODEL as nibble measures them. AutoAWQ runs
on the CPU in float32, which takes minutes where float16 takes hours; the saved copy of the weights that its search
restores aliases them there, so that it is cloned as on a GPU.
"""
import argparse
import importlib.machinery
import json
import os
import shutil
import subprocess
import sys
import time
import types
import warnings

warnings.filterwarnings("ignore")


def library(model, out, ids, group):
    stub = types.ModuleType("datasets")  # its release wants a newer hub client, and nothing here comes from it
    stub.load_dataset, stub.__spec__ = None, importlib.machinery.ModuleSpec("datasets", None)
    sys.modules["datasets"] = stub
    import torch
    from awq import AutoAWQForCausalLM
    from awq.quantize.quantizer import AwqQuantizer

    torch.set_num_threads(2)
    original = AwqQuantizer._compute_best_scale

    def cloned(self, x, w_mean, x_mean, module, linears, output, kwargs={}):
        state = module.state_dict
        module.state_dict = lambda *a, **k: {name: tensor.clone() for name, tensor in state(*a, **k).items()}
        try:
            return original(self, x, w_mean, x_mean, module, linears, output, kwargs)
        finally:
            del module.state_dict

    AwqQuantizer._compute_best_scale = cloned
    awq = AutoAWQForCausalLM.from_pretrained(model, device_map="cpu", torch_dtype=torch.float32, safetensors=True)
    begin = time.time()
    config = {"zero_point": True, "q_group_size": group, "w_bit": 4, "version": "GEMM"}
    length = max(len(x) for x in ids)
    awq.quantize(None, quant_config=config, calib_data=ids, max_calib_samples=len(ids), max_calib_seq_len=length, n_parallel_calib_samples=8)
    seconds = time.time() - begin
    awq.save_quantized(out)
    for file in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):  # it saves none
        if os.path.exists(os.path.join(model, file)):
            shutil.copy(os.path.join(model, file), out)
    return seconds


def nibble(model, out, ids, group, more):
    begin = time.time()
    command = [args.nibble, "quantize", model, "-o", out, "--method", "awq", "--group-size", str(group), "--dataset", ids, "--force", "--nsamples", str(args.samples), "--seqlen", str(1 << 20)]
    subprocess.run(command + more, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.time() - begin


def measure(folder):
    command = [args.nibble, "perplexity", folder, "-f", args.text, "--ctx", "512", "--dtype", "f32", "--kl-base", args.model, "--json"]
    if args.chunks:
        command += ["--chunks", str(args.chunks)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def report(name, seconds, folder, base):
    got = measure(folder)
    increase = "" if base is None else f"{100 * (got['ppl'] / base - 1):+.3f} %"
    print(f"| {name} | {seconds:.0f} | {got['ppl']:.4f} | {increase} | {got['kl']:.5f} | {100 * got['same_top']:.2f} |", flush=True)
    return got["ppl"]


parser = argparse.ArgumentParser()
for name in ("nibble", "model", "ids", "text", "out"):
    parser.add_argument(name)
parser.add_argument("--groups", type=int, nargs="+", default=[128, 64])
parser.add_argument("--samples", type=int, default=128)
parser.add_argument("--chunks", type=int)
parser.add_argument("--no-library", action="store_true")
args = parser.parse_args()
ids = json.load(open(args.ids))["ids"][: args.samples]
os.makedirs(args.out, exist_ok=True)
print("| | seconds | perplexity | over the source | KL | same top % |\n|---|---:|---:|---:|---:|---:|")
base = report("source", 0, args.model, None)
for group in args.groups:
    if not args.no_library:
        folder = os.path.join(args.out, f"autoawq-g{group}")
        report(f"AutoAWQ g{group}", library(args.model, folder, ids, group), folder, base)
    for name, more in (("", []), (" --awq-loss output", ["--awq-loss", "output"]), (" --no-clip", ["--no-clip"]), (" --no-duo-scaling", ["--no-duo-scaling"])):
        folder = os.path.join(args.out, f"nibble-g{group}{name.replace(' ', '')}")
        report(f"nibble{name} g{group}", nibble(args.model, folder, args.ids, group, more), folder, base)
