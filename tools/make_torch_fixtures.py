#!/usr/bin/env python3
"""Writes tests/data/safetensors and tests/data/torch with the real libraries (torch, safetensors).

Not part of the build: run it in a throw-away environment with torch 2.x and safetensors 0.8 when a fixture must change.
Usage: make_torch_fixtures.py [tests/data]
"""
import collections
import os
import pathlib
import sys

import torch
from safetensors.torch import save_file

FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"]
INTS = ["int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"]


def all_dtypes():
    torch.manual_seed(1)
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


def views():
    """Shared storages, offsets, transposes, broadcasts, parameters and nested parts."""
    base = torch.arange(24.0)
    shared = base.reshape(4, 6)
    return {
        "base": base,
        "rows": shared[1:3],
        "transposed": shared.t(),
        "column": shared[:, 2],
        "broadcast": torch.tensor([1.0, 2.0]).expand(3, 2),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "nested": {"list": [torch.tensor([5]), "text", 7], "more": collections.OrderedDict(w=torch.tensor(2.5))},
        "epoch": 3, "lr": 0.1, "name": "run", "big": 1 << 80, "negative": -5, "none": None, "flag": True,
    }


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.register_buffer("steps", torch.tensor([1, 2]))

    def forward(self, x):
        return self.fc(x)


class Evil:
    def __reduce__(self):
        return (os.system, ("echo executed > /tmp/nibble-executed",))


def save_expectation(tensors, path):
    """The same tensors as safetensors: what a reader of the PyTorch file must see."""
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)


def flat_views():
    tensors = views()
    nested = tensors.pop("nested")
    flat = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    flat["nested.list.0"] = nested["list"][0]
    flat["nested.more.w"] = nested["more"]["w"]
    return flat


def make_torch(folder):
    folder.mkdir(parents=True, exist_ok=True)
    dtypes = all_dtypes()
    torch.save(dtypes, folder / "all_dtypes.pt")
    torch.save(views(), folder / "views.pt")
    torch.save(views(), folder / "views_legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(views(), folder / "views_protocol4.pt", pickle_protocol=4)
    save_expectation(flat_views(), folder / "views.safetensors")
    torch.manual_seed(2)
    module = Inner()
    torch.save(module.state_dict(), folder / "state_dict.bin")
    torch.save({"epoch": 1, "optimizer": {"m": torch.ones(2)}, "state_dict": module.state_dict()}, folder / "training.pt")
    save_expectation(module.state_dict(), folder / "state_dict.safetensors")
    torch.jit.script(module).save(str(folder / "script.pt"))
    torch.save({"w": torch.ones(1), "x": Evil()}, folder / "evil.pt")
    torch.save({"w": torch.ones(1), "x": Evil()}, folder / "evil_legacy.pt", _use_new_zipfile_serialization=False)


def main():
    data = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/data")
    make_safetensors(data / "safetensors")
    make_torch(data / "torch")


main()
