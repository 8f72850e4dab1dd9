#!/usr/bin/env python3
"""Makes tests/data/awq/search from AutoAWQ's own run over a small model.

    python3 tools/make_awq_search_goldens.py FIXTURES tests/data/awq/search

FIXTURES is the folder gptq_awq of the format fixtures: tiny-llama, quantized by AutoAWQ 0.2.9 on a CPU in float16 with
groups of 128 and of 64, with hooks that kept what the search saw and chose. Copied are the model, the calibration ids,
the inputs of the first block's linears, per group size the search's means, scales, losses and clips, and what the
library stored for the first block's q, k and v. Needs numpy and safetensors.
"""
import json
import os
import shutil
import sys

import numpy
from safetensors.numpy import load_file, save_file

fixtures, out = sys.argv[1:3]
sys.path.insert(0, fixtures)
import verify  # the fixtures' own NumPy reader of the packed tensors

model = os.path.join(out, "model")
os.makedirs(model, exist_ok=True)
for name in ("config.json", "model.safetensors"):
    shutil.copyfile(os.path.join(fixtures, "tiny-llama", name), os.path.join(model, name))
tokens = json.load(open(os.path.join(fixtures, "tokens.json")))
json.dump({"ids": tokens["calib_token_ids"]}, open(os.path.join(out, "calibration_ids.json"), "w"))
save_file(load_file(os.path.join(fixtures, "numerics", "awq_l0_inputs.safetensors")), os.path.join(out, "inputs.safetensors"))
losses = {}
for group in (128, 64):
    folder = os.path.join(fixtures, "ckpt", f"aq_gemm_g{group}")
    golden = load_file(os.path.join(folder, "golden.safetensors"))
    stored = load_file(os.path.join(folder, "model.safetensors"))
    keep = {name: tensor for name, tensor in golden.items() if name.startswith("awq.")}
    keep["input_layernorm"] = stored["model.layers.0.input_layernorm.weight"]
    for name in ("q_proj", "k_proj", "v_proj"):
        parts = {part: stored[f"model.layers.0.self_attn.{name}.{part}"] for part in ("qweight", "qzeros", "scales")}
        codes, zeros = verify.awq_gemm_unpack(parts)
        keep[name + ".codes"], keep[name + ".zeros"], keep[name + ".scales"] = (numpy.ascontiguousarray(x.T, t) for x, t in ((codes, "u1"), (zeros, "u1"), (parts["scales"], "f2")))
    save_file(keep, os.path.join(out, f"g{group}.safetensors"))
    meta = json.load(open(os.path.join(folder, "golden.json")))
    losses[f"g{group}"] = {f"{s['layer']}.{s['layers'][0]}": s["losses"] for s in meta["search"]}
json.dump(losses, open(os.path.join(out, "losses.json"), "w"), indent=1)
