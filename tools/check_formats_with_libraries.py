#!/usr/bin/env python3
"""Proves with the real libraries that they load what `nibble convert` writes, and compute the same logits from it.

    python3 tools/check_formats_with_libraries.py NIBBLE FIXTURES --only bnb|gptq|awq|aqlm

Not part of the tests: needs torch and, in throw-away environments,
  bnb   transformers, accelerate and bitsandbytes
  gptq  gptqmodel 7.7 (BUILD_CUDA_EXT=0, pure-torch kernels) under transformers 5
  awq   autoawq 0.2.9 under transformers 4.51.3 (its dequantize-and-multiply path; Triton and IPEX switched off)
  aqlm  aqlm 1.1.7, numba; run with NUMBA_NUM_THREADS=1 (its CPU kernel has a data race)
FIXTURES holds the libraries' own checkpoints (folders bnb_quanto, gptq_awq, aqlm_etc). For each: nibble rewrites it in
its own format or in another variant, the library loads both folders, and all logits must be equal bit for bit. `nibble
logits` (f32) is shown beside them. Also loads the dequantized bf16 / f32 checkpoints with plain Transformers.
"""
import argparse
import importlib.machinery
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # gptqmodel would compile its kernel, once per checkpoint
import torch
from safetensors.torch import load_file

torch.set_num_threads(1)
IDS = [[1, 17, 300, 5, 44, 230, 9, 12], [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]]
failures = 0


def convert(folder, out, to):
    run = subprocess.run([args.nibble, "convert", folder, "-o", out, "--to", to, "--json"], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"nibble convert {folder} --to {to}: {run.stderr}")
    return json.loads(run.stdout)


def nibble_logits(folder, temp):
    ids, out = os.path.join(temp, "ids.json"), os.path.join(temp, "logits.safetensors")
    with open(ids, "w") as file:
        json.dump({"ids": IDS}, file)
    run = subprocess.run([args.nibble, "logits", folder, "--ids", ids, "-o", out, "--dtype", "f32"], capture_output=True, text=True)
    if run.returncode:
        return None
    tensors = load_file(out)
    return [tensors[f"logits.{i}"] for i in range(len(IDS))]


@torch.no_grad()
def logits_of(model):
    return [model(torch.tensor([ids])).logits[0].float().clone() for ids in IDS]


def worst(a, b):
    return max(float((x - y).abs().max()) for x, y in zip(a, b))


def report(name, what, library, ours, theirs, nibble, exact=True):
    global failures
    difference = worst(ours, theirs)
    ok = difference == 0 if exact else difference < 0.1
    failures += not ok
    beside = "" if nibble is None else f"; nibble f32 against the library: {worst(nibble, ours):.2g}"
    print(f"{'ok  ' if ok else 'FAIL'} {name} {what}: {library}: largest difference {difference:.3g} (logits up to {max(float(x.abs().max()) for x in theirs):.3g}){beside}", flush=True)


def clean_copy(folder, temp):
    """The fixture without its goldens, which some loaders would take for weights."""
    out = os.path.join(temp, "source")
    shutil.copytree(folder, out, ignore=lambda _, names: [n for n in names if n.startswith("golden")])
    return out


def each(parent, wanted):
    for name in sorted(os.listdir(parent)):
        folder = os.path.join(parent, name)
        if wanted(name) and any(f.endswith(".safetensors") for f in os.listdir(folder)):
            with tempfile.TemporaryDirectory() as temp:
                yield name, clean_copy(folder, temp), temp


def check_plain(name, source, temp, load):
    """The dequantized checkpoint, loaded as an ordinary model."""
    from transformers import AutoModelForCausalLM

    out = os.path.join(temp, "f32")
    convert(source, out, "f32")
    plain = logits_of(AutoModelForCausalLM.from_pretrained(out, torch_dtype=torch.float32, attn_implementation="eager").eval())
    nibble = nibble_logits(source, temp)
    report(name, "-> f32", "transformers on the floats, beside nibble on the quantized weights", plain, nibble, None, exact=False)
    print(f"       relative {worst(plain, nibble) / max(float(x.abs().max()) for x in plain):.2g}")


def check_bnb():
    import bitsandbytes
    import transformers
    from transformers import AutoModelForCausalLM

    library = f"bitsandbytes {bitsandbytes.__version__} through transformers {transformers.__version__}"

    def load(folder):
        return AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", attn_implementation="eager").eval()

    for name, source, temp in each(os.path.join(args.fixtures, "bnb_quanto", "ckpt"), lambda n: n.startswith("bnb")):
        convert(source, os.path.join(temp, "out"), "same")
        report(name, "rewritten", library, logits_of(load(os.path.join(temp, "out"))), logits_of(load(source)), nibble_logits(source, temp))
        if "int8" not in name:
            check_plain(name, source, temp, load)


def check_gptq():
    global failures
    import gptqmodel
    from gptqmodel import BACKEND, GPTQModel

    def load(folder, awq):
        backend = BACKEND.TORCH_AWQ if awq else BACKEND.TORCH
        return GPTQModel.load(folder, device="cpu", backend=backend, dtype=torch.float16).model.eval()

    library = f"gptqmodel {gptqmodel.__version__}, BACKEND.TORCH"
    for name, source, temp in each(os.path.join(args.fixtures, "gptq_awq", "ckpt"), lambda n: True):
        awq = "awq" in name or name.startswith("aq_")
        if name.startswith("aq_gemv"):
            continue  # gptqmodel's torch kernel reads gemm
        targets = ["same"] if awq else ["same", "gptq", "gptq_v2"]
        for file in ("config.json", "quantize_config.json"):  # gptqmodel 7 refuses the key even where it is false
            path = os.path.join(source, file)
            if os.path.exists(path):
                config = json.load(open(path))
                config.get("quantization_config", config).pop("is_marlin_format", None)
                json.dump(config, open(path, "w"))
        if not os.path.exists(os.path.join(source, "tokenizer.json")):  # AutoGPTQ and AutoAWQ saved none
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(os.path.join(args.fixtures, "gptq_awq", "tiny-llama", file), source)
        try:
            theirs = logits_of(load(source, awq))
        except Exception as error:  # noqa: BLE001
            print(f"skip {name}: {library} does not load its original: {str(error).splitlines()[0][:120]}")
            theirs = None
        for target in targets:
            out = os.path.join(temp, target)
            convert(source, out, target)
            try:
                ours = logits_of(load(out, awq))
            except Exception as error:  # noqa: BLE001
                failures += theirs is not None
                print(f"{'FAIL' if theirs is not None else 'skip'} {name} {target}: does not load: {str(error).splitlines()[0][:160]}")
                continue
            nibble = nibble_logits(source, temp)
            if theirs is None:
                report(name, target, f"{library} beside nibble in f32", ours, nibble, None, exact=False)
            else:
                report(name, target, library, ours, theirs, nibble)
        check_plain(name, source, temp, load)


def check_awq():
    import types

    stub = types.ModuleType("datasets")  # for calibration only, and its release wants a newer hub client
    stub.load_dataset, stub.__spec__ = None, importlib.machinery.ModuleSpec("datasets", None)
    sys.modules["datasets"] = stub
    import awq.models.base as base
    import awq.modules.linear.gemm as gemm
    import transformers
    from awq import AutoAWQForCausalLM
    from awq.modules.linear import WQLinear_GEMVFast

    gemm.TRITON_AVAILABLE = False
    gemm.awq_ext = None
    base.get_best_device = lambda: "cpu (plain torch)"
    library = f"autoawq 0.2.9 under transformers {transformers.__version__}, dequantize path"

    def load(folder):
        model = AutoAWQForCausalLM.from_quantized(folder, fuse_layers=False, device_map={"": "cpu"}, torch_dtype=torch.float16)
        return model.model.eval()

    root = os.path.join(args.fixtures, "gptq_awq", "ckpt")
    for name, source, temp in each(root, lambda n: n.startswith("aq_gemm") or n.startswith("gm_awq")):
        theirs = logits_of(load(source))
        for target in ("same", "through gemv", "through gemv_fast", "through llm-awq"):
            out = os.path.join(temp, target.replace(" ", "_"))
            if target == "same":
                convert(source, out, target)
            else:
                convert(source, out + "_1", target.split()[1])
                convert(out + "_1", out, "gemm")
            report(name, target, library, logits_of(load(out)), theirs, nibble_logits(source, temp))

    # No CPU kernel of AutoAWQ reads gemv: compare the tensors with those that its own code packs.
    def tensors_of(folder):
        return load_file(os.path.join(folder, "model.safetensors"))

    with tempfile.TemporaryDirectory() as temp:
        source = os.path.join(root, "aq_gemm_g64")
        copy = clean_copy(source, temp)
        convert(copy, os.path.join(temp, "gemv"), "gemv")
        compare("aq_gemm_g64 -> gemv against AutoAWQ's own aq_gemv_g64", tensors_of(os.path.join(temp, "gemv")), tensors_of(os.path.join(root, "aq_gemv_g64")))
        convert(copy, os.path.join(temp, "fast"), "gemv_fast")
        ours, packed = tensors_of(os.path.join(temp, "fast")), {}
        source_tensors = tensors_of(source)
        for name in [n[:-8] for n in source_tensors if n.endswith(".qweight")]:
            from awq.utils.packing_utils import reverse_awq_order, unpack_awq

            weights, zeros = unpack_awq(source_tensors[name + ".qweight"], source_tensors[name + ".qzeros"], 4)
            weights, zeros = reverse_awq_order(weights, zeros, 4)
            weights, zeros = (weights & 15), (zeros & 15)
            scales = source_tensors[name + ".scales"]
            wide_scales, wide_zeros = scales.repeat_interleave(64, 0), zeros.repeat_interleave(64, 0)
            linear = torch.nn.Linear(weights.shape[0], weights.shape[1], bias=False)
            linear.weight.data = ((weights - wide_zeros).float() * wide_scales.float()).T.contiguous()
            module = WQLinear_GEMVFast.from_linear(linear, 4, 64, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
            packed |= {f"{name}.{part}": getattr(module, part) for part in ("qweight", "qzeros", "scales")}
        compare("aq_gemm_g64 -> gemv_fast against WQLinear_GEMVFast.from_linear", {k: v for k, v in ours.items() if k in packed}, packed)


def compare(what, ours, theirs):
    global failures
    bad = [n for n in theirs if n not in ours or ours[n].dtype != theirs[n].dtype or not torch.equal(ours[n], theirs[n])]
    failures += bool(bad)
    print(f"{'FAIL' if bad else 'ok  '} {what}: {len(theirs)} tensors, {len(bad)} differ {bad[:2]}", flush=True)


def check_aqlm():
    import aqlm
    import transformers
    from importlib.metadata import version
    from transformers import AutoConfig, AutoModelForCausalLM

    del aqlm
    library = f"aqlm {version('aqlm')} through transformers {transformers.__version__}"

    def load(folder):
        # Transformers 5 compares the list, which holds names of parameters, with names of modules: give it both.
        config = AutoConfig.from_pretrained(folder)
        names = config.quantization_config["linear_weights_not_to_quantize"]
        config.quantization_config["linear_weights_not_to_quantize"] = names + [n[:-7] for n in names if n.endswith(".weight")]
        return AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32, attn_implementation="eager").eval()

    for name, source, temp in each(os.path.join(args.fixtures, "aqlm_etc"), lambda n: n.startswith("aqlm-")):
        convert(source, os.path.join(temp, "out"), "same")
        report(name, "rewritten", library, logits_of(load(os.path.join(temp, "out"))), logits_of(load(source)), nibble_logits(source, temp))
        check_plain(name, source, temp, load)


parser = argparse.ArgumentParser()
parser.add_argument("nibble")
parser.add_argument("fixtures")
parser.add_argument("--only", choices=["bnb", "gptq", "awq", "aqlm"], required=True)
args = parser.parse_args()
{"bnb": check_bnb, "gptq": check_gptq, "awq": check_awq, "aqlm": check_aqlm}[args.only]()
print("all equal" if failures == 0 else f"{failures} failures")
sys.exit(failures != 0)
