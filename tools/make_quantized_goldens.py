#!/usr/bin/env python3
"""Quantizes small models of tests/data/models with the real libraries, and computes their logits.

  make_quantized_goldens.py MODELS OUT     tests/data/models -> OUT/<name>/

A folder gets the files that the library saved and golden.safetensors: ids.I as the model's own golden has them, and
logits_f32.I of the model with the weights that the library dequantizes to, computed in f32.

Made with transformers 5.24.0, bitsandbytes 0.50.2, optimum-quanto 0.2.7 and torch 2.15.0 (CPU).
"""
import json
import pathlib
import sys

import bitsandbytes as bnb
import torch
from optimum.quanto import QuantizedModelForCausalLM, qint4
from optimum.quanto.nn import QModuleMixin
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

torch.set_num_threads(1)
torch.set_grad_enabled(False)


def dense(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def dequantized_4bit(codes, state):
    """By the format's definition. The CPU kernel of bitsandbytes 0.50.2 takes wrong scales where blocks cross the ends
    of rows, as they do in models this small. Not rounded to the checkpoint's dtype: products in f32 do not do that."""
    absmax = state.absmax
    if state.nested:
        absmax = bnb.functional.dequantize_blockwise(absmax, state.state2) + state.offset
    pairs, count = codes.flatten(), state.shape.numel()
    index = torch.stack([pairs >> 4, pairs & 15], dim=1).flatten()[:count].long()
    values = state.code[index] * absmax.repeat_interleave(state.blocksize)[:count]
    return values.view(state.shape)


def bitsandbytes(source, out, **options):
    config = BitsAndBytesConfig(**options)
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, dtype=torch.bfloat16,
                                                 device_map="cpu")
    model.save_pretrained(out)
    exact = dense(source)
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, bnb.nn.Linear4bit):
            exact.get_submodule(name).weight.copy_(dequantized_4bit(weight.data, weight.quant_state).float())
    return exact


def dense_weight(model, name):
    """Where Transformers 5 holds what a file calls `name`."""
    layer, found, rest = name.partition(".block_sparse_moe.experts.")
    if not found:
        return model.get_parameter(name.replace("block_sparse_moe", "mlp"))
    experts = model.get_submodule(layer + ".mlp.experts")
    number, which, _ = rest.split(".")
    if which == "w2":
        return experts.down_proj[int(number)]
    return experts.gate_up_proj[int(number)].chunk(2)[0 if which == "w1" else 1]


def nf4_of_every_module(source, out):
    """As Transformers 4 saved it, for which each expert's matrices, and the router, were linear modules."""
    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                     "bnb_4bit_use_double_quant": False, "bnb_4bit_compute_dtype": "bfloat16"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    saved, exact = {}, dense(source)
    for name, tensor in load_file(source / "model.safetensors").items():
        if tensor.dim() == 1 or "embed_tokens" in name or "lm_head" in name:
            saved[name] = tensor
            continue
        codes, state = bnb.functional.quantize_4bit(tensor, blocksize=64, quant_type="nf4")
        saved[name] = codes
        saved.update({f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()})
        dense_weight(exact, name).copy_(dequantized_4bit(codes, state))
    save_file(saved, out / "model.safetensors", metadata={"format": "pt"})
    return exact


def quanto(source, out, **options):
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    quantized = QuantizedModelForCausalLM.quantize(model, **options)
    quantized.save_pretrained(out)
    exact = dense(source)
    for name, module in model.named_modules():
        if isinstance(module, QModuleMixin):
            exact.get_submodule(name).weight.copy_(module.weight.dequantize().float())
    return exact


def main():
    models, out = map(pathlib.Path, sys.argv[1:])
    cases = {
        "bloom-bnb-nf4": ("bloom", bitsandbytes, dict(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                                                      bnb_4bit_use_double_quant=True)),
        "neox-quanto-int4": ("neox", quanto, dict(weights=qint4, exclude="*lm_head*")),
        "mixtral-v4-bnb-nf4": ("mixtral-v4-window", nf4_of_every_module, {}),
    }
    for name, (model, library, options) in cases.items():
        exact = library(models / model, out / name, **options)
        for extra in ("generation_config.json", "README.md"):
            (out / name / extra).unlink(missing_ok=True)
        golden = load_file(models / model / "golden.safetensors")
        golden = {key: value for key, value in golden.items() if key.startswith("ids.")}
        for i in range(2):
            golden[f"logits_f32.{i}"] = exact(input_ids=golden[f"ids.{i}"][None]).logits[0].contiguous()
        save_file(golden, out / name / "golden.safetensors")
        for file in (out / name).iterdir():
            file.chmod(0o644)
        print(name, sum(f.stat().st_size for f in (out / name).iterdir()), "bytes")


main()
