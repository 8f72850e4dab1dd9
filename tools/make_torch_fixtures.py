#!/usr/bin/env python3
"""Writes tests/data/safetensors and tests/data/torch with the real libraries (torch, safetensors).

Not part of the build: run it in a throw-away environment with torch 2.x and safetensors 0.8 when a fixture must change.
Usage: make_torch_fixtures.py [tests/data]
"""
import pathlib
import sys

import torch
from safetensors.torch import save_file

torch.manual_seed(1)

FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"]
INTS = ["int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"]


def all_dtypes():
    tensors = {}
    for name in FLOATS:
        tensors["z." + name] = torch.randn(3, 5).to(getattr(torch, name))
    for name in INTS:
        tensors["a." + name] = torch.arange(7).to(getattr(torch, name))
    tensors["flags"] = torch.tensor([True, False, True])
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros(0, 4)
    tensors["odd \x01\"\\/\n\t é 漢"] = torch.ones(2)
    return tensors


def make_safetensors(folder):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(all_dtypes(), folder / "all_dtypes.safetensors", metadata={"format": "pt"})
    save_file({"w": torch.arange(6.0).reshape(2, 3)}, folder / "no_metadata.safetensors")


def main():
    data = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data")
    make_safetensors(data / "safetensors")


main()
