#!/usr/bin/env python3
"""What Transformers' get_memory_footprint() says, for tests/data/footprints.json.

    python tools/make_footprint_goldens.py > tests/data/footprints.json

Needs torch, transformers, accelerate, bitsandbytes, optimum-quanto. Each entry: a model of this repository, how it was loaded, and the
number; "skipped" entries name what the real library could not load here.
"""
import json
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, QuantoConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIGS = {
    None: lambda: {},
    "8bit": lambda: {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)},
    "4bit": lambda: {"quantization_config": BitsAndBytesConfig(load_in_4bit=True)},
    "nf4-double": lambda: {
        "quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    },
    "quanto-int8": lambda: {"quantization_config": QuantoConfig(weights="int8")},
    "quanto-int4": lambda: {"quantization_config": QuantoConfig(weights="int4")},
}


def cases():
    for folder in sorted((ROOT / "tests/data/models").iterdir()):
        for dtype in (None, "float32", "float16"):
            yield folder, None, dtype
    for folder in (ROOT / "models/demo", ROOT / "tests/data/quanto/tiny-llama-bf16"):
        for config in CONFIGS:
            for dtype in (None, "float32", "float16"):
                yield folder, config, dtype
    for name in ("bnb/ckpt/bnb_nf4_bf16", "gptq/ag_b3_g64_sym_desc"):
        for dtype in (None, "float16"):
            yield ROOT / "tests/data" / name, None, dtype


def main():
    torch.set_num_threads(2)
    out = []
    for folder, config, dtype in cases():
        entry = {"model": str(folder.relative_to(ROOT)), "config": config, "dtype": dtype}
        try:
            options = CONFIGS[config]()
            if dtype:
                options["dtype"] = getattr(torch, dtype)
            model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", **options)
            entry["bytes"] = model.get_memory_footprint()
            norms = [p for n, p in model.named_parameters() if "norm" in n or "ln_" in n]
            entry["norm_dtype"] = str(norms[-1].dtype) if norms else None
        except Exception as error:  # the libraries raise anything
            entry["skipped"] = repr(error)[:100]
            print(folder, config, dtype, error, file=sys.stderr)
        out.append(entry)
    print(json.dumps({"transformers": transformers.__version__, "entries": out}, indent=1))


if __name__ == "__main__":
    main()
