#!/usr/bin/env python3
"""Makes tests/data/adapters: LoRA adapters of the small models in tests/data/models, trained by nobody, saved by the
real PEFT library, with the f32 logits that Transformers and PEFT give.

Usage: make_adapter_goldens.py REPOSITORY      needs torch, transformers, peft, safetensors
"""
import json
import os
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

# name: (base, arguments of LoraConfig, file format)
CASES = {
    "llama-rslora": ("llama", dict(r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "k_proj", "down_proj"],
                                   rank_pattern={"layers.1.mlp.down_proj": 2}, alpha_pattern={"k_proj": 7}), "safetensors"),
    "llama-dora": ("llama", dict(r=2, lora_alpha=4, use_dora=True, target_modules=r".*\.(q_proj|up_proj)"), "bin"),
    "llama-tied": ("llama-v4-bias-tied", dict(r=2, lora_alpha=3, target_modules=["embed_tokens", "lm_head", "v_proj"],
                                              bias="all"), "safetensors"),
    "llama-lora-bias": ("llama-v4-bias-tied", dict(r=2, lora_alpha=3, lora_bias=True, bias="lora_only", target_modules=["o_proj", "gate_proj"],
                                                   layers_to_transform=[1]), "safetensors"),
    "llama-saved": ("llama-v4-bias-tied", dict(r=2, lora_alpha=3, target_modules=["q_proj"],
                                               modules_to_save=["embed_tokens", "norm"]), "safetensors"),
    "gpt2": ("gpt2-v4", dict(r=2, lora_alpha=4, target_modules=["c_attn", "c_proj", "wpe"], fan_in_fan_out=True), "safetensors"),
    "gpt2-dora": ("gpt2-v4", dict(r=2, lora_alpha=4, use_dora=True, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True), "safetensors"),
    "neox": ("neox", dict(r=2, lora_alpha=4, target_modules=["query_key_value", "dense_4h_to_h"]), "safetensors"),
    "bloom": ("bloom", dict(r=2, lora_alpha=4, use_rslora=True, target_modules=["query_key_value", "dense"]), "safetensors"),
    "flan-t5": ("flan-t5", dict(r=2, lora_alpha=4, target_modules=["q", "v", "wo"]), "safetensors"),
}
# name: adapters of one base that are active together, in this order
TOGETHER = {"llama-rslora+llama-dora": ("llama-rslora", "llama-dora")}


def fill(model):
    """Values as after a training: nothing is at its starting point."""
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if "magnitude" in name:
                p.mul_(1 + 0.2 * noise)
            elif "lora_" in name:
                p.copy_(noise * 0.2)
            elif p.requires_grad:  # modules_to_save, biases
                p.add_(noise * 0.05)


def main():
    root = sys.argv[1]
    out_root = os.path.join(root, "tests/data/adapters")
    ids = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(3))

    def base_of(name):
        auto = AutoModelForSeq2SeqLM if "t5" in name else AutoModelForCausalLM
        return auto.from_pretrained(os.path.join(root, "tests/data/models", name), dtype=torch.float32).eval()

    def logits(model):
        """An encoder-decoder reads the same ids on both sides."""
        extra = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        with torch.no_grad():
            return model(input_ids=ids, **extra).logits.float().contiguous()

    index = {}
    for name, (base, arguments, kind) in CASES.items():
        folder = os.path.join(out_root, name)
        shutil.rmtree(folder, ignore_errors=True)
        torch.manual_seed(7)
        model = get_peft_model(base_of(base), LoraConfig(task_type="SEQ_2_SEQ_LM" if "t5" in base else "CAUSAL_LM", init_lora_weights=False, **arguments))
        fill(model)
        model.eval().save_pretrained(folder, safe_serialization=kind == "safetensors")
        os.path.exists(folder + "/README.md") and os.remove(folder + "/README.md")
        loaded = PeftModel.from_pretrained(base_of(base), folder).eval()
        tensors = {"ids": ids, "logits": logits(loaded), "base": logits(base_of(base))}
        save_file(tensors, folder + "/golden.safetensors")
        effect = float((tensors["logits"] - tensors["base"]).abs().max())
        index[name] = {"base": base, "effect": effect, "saved_again": float((logits(model) - tensors["logits"]).abs().max())}
    for name, parts in TOGETHER.items():
        base = CASES[parts[0]][0]
        model = PeftModel.from_pretrained(base_of(base), os.path.join(out_root, parts[0]), adapter_name="a0").eval()
        for i, part in enumerate(parts[1:], 1):
            model.load_adapter(os.path.join(out_root, part), adapter_name=f"a{i}")
        model.base_model.set_adapter([f"a{i}" for i in range(len(parts))])
        save_file({"ids": ids, "logits": logits(model.eval())}, os.path.join(out_root, name + ".safetensors"))
        index[name] = {"base": base}
    with open(os.path.join(out_root, "index.json"), "w") as file:
        json.dump(index, file, indent=1)
    print(json.dumps(index, indent=1))


if __name__ == "__main__":
    main()
