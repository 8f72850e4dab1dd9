#!/usr/bin/env python3
"""Quantizes a checkpoint with a real library, for tools/accuracy_table.py to compare with nibble.

    python3 tools/quantize_with_library.py LIBRARY MODEL OUT --bits 4 --group-size 128 --ids FILE.json [--samples N]

Not part of the tests: each LIBRARY wants a throw-away environment of its own:
  gptqmodel  gptqmodel 7.7 (BUILD_CUDA_EXT=0) under transformers 5
  autoawq    autoawq 0.2.9 under transformers 4.51.3
  hqq        hqq 0.2.8
OUT is a checkpoint in the library's own format; for hqq, whose format nibble does not read, the dequantized floats.
Prints the seconds that the library's own quantize call took.
"""
import argparse
import importlib.machinery
import json
import os
import shutil
import sys
import time
import types
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores its own default is too few for itself
import torch

parser = argparse.ArgumentParser()
parser.add_argument("library", choices=["gptqmodel", "autoawq", "hqq"])
parser.add_argument("model")
parser.add_argument("out")
parser.add_argument("--bits", type=int, default=4)
parser.add_argument("--group-size", type=int, default=128)
parser.add_argument("--asym", action="store_true")
parser.add_argument("--desc-act", action="store_true")
parser.add_argument("--mse", type=float, default=0)
parser.add_argument("--ids")
parser.add_argument("--samples", type=int, default=128)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
torch.set_num_threads(args.threads)


def calibration():
    return json.load(open(args.ids))["ids"][: args.samples]


def gptqmodel():
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(bits=args.bits, group_size=args.group_size, sym=not args.asym, desc_act=args.desc_act,
                            damp_percent=0.01, mse=args.mse, format="gptq_v2" if args.asym else "gptq")
    model = GPTQModel.load(args.model, config, device="cpu", dtype=torch.float32)
    data = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in calibration()]
    begin = time.time()
    model.quantize(data, batch_size=4, tokenizer=None, calibration_concat_size=None)
    seconds = time.time() - begin
    model.save(args.out)
    return seconds


def autoawq():
    stub = types.ModuleType("datasets")  # its release wants a newer hub client, and nothing here comes from it
    stub.load_dataset, stub.__spec__ = None, importlib.machinery.ModuleSpec("datasets", None)
    sys.modules["datasets"] = stub
    from awq import AutoAWQForCausalLM
    from awq.quantize import quantizer as q

    # On a CPU `v.cpu()` aliases the parameter, so the saved weights are overwritten by the first trial (on CUDA it is a
    # copy). Cloning gives what the library does on a GPU.
    search = q.AwqQuantizer._compute_best_scale

    def cloned(self, x, w_mean, x_mean, module2inspect, *rest, **kw):
        state = module2inspect.state_dict
        module2inspect.state_dict = lambda *a, **k: {n: t.clone() for n, t in state(*a, **k).items()}
        try:
            return search(self, x, w_mean, x_mean, module2inspect, *rest, **kw)
        finally:
            del module2inspect.state_dict

    q.AwqQuantizer._compute_best_scale = cloned
    model = AutoAWQForCausalLM.from_pretrained(args.model, device_map="cpu", torch_dtype=torch.float32, safetensors=True)
    config = {"w_bit": args.bits, "q_group_size": args.group_size, "zero_point": True, "version": "GEMM"}
    begin = time.time()
    model.quantize(None, quant_config=config, calib_data=calibration(), max_calib_samples=args.samples, max_calib_seq_len=512,
                   n_parallel_calib_samples=8)
    seconds = time.time() - begin
    model.save_quantized(args.out)
    return seconds


def hqq():
    from hqq.core.quantize import Quantizer
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    begin = time.time()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            codes, meta = Quantizer.quantize(module.weight.data, nbits=args.bits, channel_wise=True, group_size=args.group_size,
                                             optimize=True, axis=1, device="cpu", compute_dtype=torch.float32)
            module.weight.data = Quantizer.dequantize(codes, meta).reshape(module.weight.shape).to(torch.float32)
    seconds = time.time() - begin
    model.save_pretrained(args.out)
    return seconds


seconds = {"gptqmodel": gptqmodel, "autoawq": autoawq, "hqq": hqq}[args.library]()
for file in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"):
    if os.path.exists(os.path.join(args.model, file)) and not os.path.exists(os.path.join(args.out, file)):
        shutil.copy(os.path.join(args.model, file), args.out)
print(json.dumps({"seconds": round(seconds, 2)}))
