#!/usr/bin/env python3
"""Proves with the real Transformers and bitsandbytes that they load what `nibble quantize` writes, and that the bytes are
their own.

    python3 tools/check_bnb_with_library.py NIBBLE MODEL...

Needs torch, transformers, accelerate and bitsandbytes in a throw-away environment; not part of the tests. For every model
folder and method: quantize with nibble and with Transformers, compare all tensors byte by byte and the
quantization_config key by key, then load nibble's folder with Transformers and compare its logits with those of the
library's own checkpoint (saved before any forward pass: afterwards bitsandbytes saves other scales on some CPUs).
"""
import json
import os
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
import torch
import transformers
from safetensors import safe_open
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)
METHODS = {
    "nf4": (["--method", "bnb-nf4"], dict(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
    "nf4-double": (["--method", "bnb-nf4", "--double-quant"],
                   dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)),
    "fp4": (["--load-in-4bit"], dict(load_in_4bit=True)),
    "int8": (["--load-in-8bit"], dict(load_in_8bit=True)),
    "int8-list": (["--load-in-8bit", "--skip-modules", "layers.0,up_proj"],
                  dict(load_in_8bit=True, llm_int8_skip_modules=["layers.0", "up_proj"])),
}


def read(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            with safe_open(os.path.join(folder, name), "pt") as file:
                for key in file.keys():
                    t = file.get_tensor(key)
                    out[key] = (str(t.dtype), tuple(t.shape), t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return out


def config_of(folder):
    return json.load(open(os.path.join(folder, "config.json")))["quantization_config"]


def logits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu")
    with torch.no_grad():
        return model(torch.arange(2, 34)[None]).logits.float()


def main():
    nibble, models = sys.argv[1], sys.argv[2:]
    failed = 0
    for model in models:
        for name, (flags, config) in METHODS.items():
            with tempfile.TemporaryDirectory() as temp:
                ours, theirs = os.path.join(temp, "ours"), os.path.join(temp, "theirs")
                subprocess.run([nibble, "quantize", model, "-o", ours] + flags, check=True, stdout=subprocess.DEVNULL)
                library = AutoModelForCausalLM.from_pretrained(model, quantization_config=BitsAndBytesConfig(**config),
                                                               device_map="cpu")
                library.save_pretrained(theirs)
                del library
                a, b = read(ours), read(theirs)
                different = [key for key in sorted(set(a) | set(b)) if a.get(key) != b.get(key)]
                same_config = config_of(ours) == config_of(theirs)
                distance = (logits(ours) - logits(theirs)).abs().max().item()
                bad = different or not same_config or distance != 0
                failed += bool(bad)
                print(f"{os.path.basename(model.rstrip('/'))} {name}: {len(b)} tensors, {len(different)} differ {different[:4]}, "
                      f"config {'equal' if same_config else 'differs'}, logits differ by {distance}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
