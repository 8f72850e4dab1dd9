#!/usr/bin/env python3
"""Checks nibble's adapters against the real libraries.

For each adapter: the logits of `nibble logits BASE --lora ADAPTER`, and of what `nibble merge` wrote when the real
Transformers loads it, against those of Transformers and PEFT on the same base, all in f32.

Usage: check_adapters_with_peft.py NIBBLE REPOSITORY [BASE ADAPTER]...
Needs torch, transformers, peft, safetensors. Without pairs, checks tests/data/adapters. Exit code 1 when a difference is
larger than BOUND.
"""
import json
import os
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

BOUND = 2e-5  # of the largest logit


def reference(model, ids):
    """An encoder-decoder reads the same ids on both sides."""
    with torch.no_grad():
        rows = [torch.tensor([row]) for row in ids]
        both = model.config.is_encoder_decoder
        return torch.cat([model(input_ids=r, **({"decoder_input_ids": r} if both else {})).logits.float() for r in rows])


def is_encoder_decoder(folder):
    return bool(json.load(open(os.path.join(folder, "config.json"))).get("is_encoder_decoder"))


def open_base(folder):
    auto = AutoModelForSeq2SeqLM if is_encoder_decoder(folder) else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32).eval()


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr}")
    return done.stdout


def nibble_logits(nibble, model, ids_file, work, *extra):
    out = os.path.join(work, "logits.safetensors")
    if is_encoder_decoder(model):
        extra += ("--decoder-ids", ids_file)
    run(nibble, "logits", model, "--ids", ids_file, "-o", out, "--dtype", "f32", *extra)
    tensors = load_file(out)
    return torch.stack([tensors[f"logits.{i}"] for i in range(len(tensors))])


def check(nibble, base, adapter, work):
    vocab = json.load(open(os.path.join(base, "config.json")))["vocab_size"]
    ids = torch.randint(3, vocab, (3, 16), generator=torch.Generator().manual_seed(11)).tolist()
    ids_file = os.path.join(work, "ids.json")
    json.dump({"ids": ids}, open(ids_file, "w"))
    expected = reference(PeftModel.from_pretrained(open_base(base), adapter).eval(), ids)
    merged = os.path.join(work, "merged")
    report = json.loads(run(nibble, "merge", base, "--lora", adapter, "-o", merged, "--dtype", "f32", "--force", "--json"))
    differences = {
        "effect": reference(open_base(base), ids) - expected,
        "at run time": nibble_logits(nibble, base, ids_file, work, "--lora", adapter) - expected,
        "merged, nibble": nibble_logits(nibble, merged, ids_file, work) - expected,
        "merged, Transformers": reference(open_base(merged), ids) - expected,
    }
    figures = {name: float(d.abs().max() / expected.abs().max()) for name, d in differences.items()}
    good = all(value < BOUND for name, value in figures.items() if name != "effect")
    line = "  ".join(f"{name} {value:.2e}" for name, value in figures.items())
    print(f"{os.path.basename(adapter):16} {line}  KL {report['kl']:.1e}  same top {report['same_top']:.4f}  {'ok' if good else 'WRONG'}")
    return good


def main():
    nibble, repository, *pairs = sys.argv[1:]
    data = os.path.join(repository, "tests/data")
    if not pairs:
        index = json.load(open(os.path.join(data, "adapters/index.json")))
        for name, case in index.items():
            if "+" not in name:
                pairs += [os.path.join(data, "models", case["base"]), os.path.join(data, "adapters", name)]
    good = True
    for base, adapter in zip(pairs[::2], pairs[1::2]):
        with tempfile.TemporaryDirectory() as work:
            good &= check(nibble, base, adapter, work)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
