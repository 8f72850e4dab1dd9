"""Cuts tests/data/gptq/numerics.safetensors out of what AutoGPTQ 0.7.1 computed for one layer (fixtures/gptq_awq/numerics:
gptq_autogptq.safetensors, made by make.py there with the real library): weight, calibration inputs, and codes, scales,
zero points and groups for a few settings.
  python tools/make_gptq_numerics.py FIXTURES/numerics tests/data/gptq"""
import json, os, sys
from safetensors.numpy import load_file, save_file

source, out = sys.argv[1:3]
tensors = load_file(os.path.join(source, "gptq_autogptq.safetensors"))
cases = json.load(open(os.path.join(source, "gptq_autogptq.json")))
chosen = ["b4_g128_sym", "b4_g64_asym_desc_static", "b3_g128_sym_desc", "b2_g64_asym"]
kept = {"W": tensors["W"], "X": tensors["X"].reshape(-1, tensors["X"].shape[-1])}
for name in chosen:
    for part in ("codes", "scale", "zero", "g_idx"):
        kept[name + "." + part] = tensors[name + "." + part]
save_file(kept, os.path.join(out, "numerics.safetensors"))
json.dump({name: cases[name] for name in chosen}, open(os.path.join(out, "numerics.json"), "w"), indent=1)
