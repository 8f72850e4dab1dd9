#!/usr/bin/env python3
"""Seeds of the loader fuzz targets (tests/fuzz/scheme_target.h) from small modules that the real libraries wrote.

Usage: make_loader_seeds.py REPOSITORY       reads tests/data, writes tests/fuzz/corpus/{gptq,awq,bnb4,bnb8,aqlm}
"""
import json
import struct
import sys
from pathlib import Path

NAMES = {"I32": "i32", "I16": "i16", "I8": "i8", "U8": "u8", "F16": "f16", "BF16": "bf16", "F32": "f32"}
root = Path(sys.argv[1])


def tensors(file):
    raw = (root / "tests/data" / file).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    return {
        name: (NAMES[t["dtype"]], t["shape"], raw[8 + size + t["data_offsets"][0] : 8 + size + t["data_offsets"][1]])
        for name, t in header.items()
        if t["dtype"] in NAMES
    }


def save(scheme, name, config, own, parts):
    """parts: (name, dtype, shape, bytes)"""
    lines = [json.dumps(config), json.dumps(own) if own else ""]
    lines += [" ".join([part, dtype, *map(str, shape)]) for part, dtype, shape, _ in parts]
    data = "\n".join(lines).encode() + b"\n\n" + b"".join(part[3] for part in parts)
    folder = root / "tests/fuzz/corpus" / scheme
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def module(all_tensors, name, parts, to="a"):
    return [(f"{to}.{part}", *all_tensors[f"{name}.{part}"]) for part in parts if f"{name}.{part}" in all_tensors]


def gptq():
    for file, kind in (("gptq/pack_autogptq_v1.safetensors", "gptq"), ("gptq/pack_gptqmodel_v2.safetensors", "gptq_v2")):
        all_tensors = tensors(file)
        for bits in (2, 3, 4, 8):
            for case in ("g32_sym_desc", "g64_asym_nat", "g-1_asym_nat"):
                name = f"b{bits}_{case}"
                if f"{name}.qweight" not in all_tensors:
                    continue
                group = {"g32": 32, "g64": 64, "g-1": -1}[case.split("_")[0]]
                own = {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": "asym" not in case,
                       "desc_act": "desc" in case, "checkpoint_format": kind}
                parts = module(all_tensors, name, ("g_idx", "qzeros", "scales", "qweight"))
                if bits == 4:
                    save("gptq", f"{kind}_{name}_both", {"quantization_config": own | {"dynamic": {"-:b.*": {}, "+:a": {"bits": 4}}}},
                         own, parts)
                else:
                    save("gptq", f"{kind}_{name}", {}, own, parts)


def awq():
    all_tensors = tensors("awq/pack_autoawq.safetensors")
    for version in ("gemm", "gemv", "gemv_fast"):
        for group in (32, 64, 128):
            name = f"{version}_g{group}"
            parts = module(all_tensors, name, ("qzeros", "scales", "qweight"))
            config = {"quant_method": "awq", "bits": 4, "group_size": group, "version": version, "zero_point": True,
                      "modules_to_not_convert": ["lm_head"]}
            if group == 64:
                config |= {"do_fuse": True, "fuse_max_seq_len": 512, "modules_to_fuse": {"attention": ["a"], "use_alibi": False}}
            save("awq", name, {"quantization_config": config}, None, parts)
    fast = module(all_tensors, "gemv_fast_g128", ("qzeros", "scales", "qweight"))
    save("awq", "llm_awq", {}, None, [(n.replace("qzeros", "scaled_zeros"), *rest) for n, *rest in fast])


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


def small_bnb4(kind, nested, rows=4, cols=64, block=32):
    blocks = rows * cols // block
    state = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": [rows, cols]}
    if nested:
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05}
    text = json.dumps(state).encode()
    nf4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
           -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
           0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
    fp4 = [0.0, 0.0052083334885537624, 0.6666666865348816, 1.0, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25]
    values = nf4 if kind == "nf4" else fp4 + [0.0] + [-v for v in fp4[1:]]
    parts = [(f"a.weight.quant_state.bitsandbytes__{kind}", "u8", [len(text)], text),
             ("a.weight.quant_map", "f32", [16], floats(values))]
    if nested:
        parts += [("a.weight.nested_absmax", "f32", [1], floats([0.5])),
                  ("a.weight.nested_quant_map", "f32", [256], floats([i / 128 - 1 for i in range(256)])),
                  ("a.weight.absmax", "u8", [blocks], bytes(range(blocks)))]
    else:
        parts.append(("a.weight.absmax", "f32", [blocks], floats([(i + 1) / blocks for i in range(blocks)])))
    parts.append(("a.weight", "u8", [rows * cols // 2, 1], bytes(i * 37 % 256 for i in range(rows * cols // 2))))
    parts.append(("a.bias", "f16", [rows], bytes(2 * rows)))
    return parts


def bnb():
    four = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_compute_dtype": "bfloat16"}
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            config = {"quantization_config": four | {"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": nested}}
            save("bnb4", kind + ("_nested" if nested else ""), config if kind == "nf4" else {}, None, small_bnb4(kind, nested))
    eight = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0, "llm_int8_skip_modules": ["lm_head"]}
    weight = bytes(i * 37 % 256 for i in range(4 * 32))
    scale = floats([1, 0.5, 0, 2])
    for name, config in (("config", {"quantization_config": eight}), ("plain", {})):
        save("bnb8", name, config, None, [("a.SCB", "f32", [4], scale), ("a.weight_format", "u8", [], b"\0"),
                                          ("a.weight", "i8", [4, 32], weight), ("a.bias", "f16", [4], bytes(8))])


def aqlm():
    for books, bits, out, width, kind in ((1, 8, 1, 8, "i8"), (2, 8, 1, 8, "i8"), (1, 12, 1, 8, "i16"), (2, 6, 2, 4, "i8"), (1, 16, 1, 1, "i16")):
        rows, cols = 2, 4
        config = {"quant_method": "aqlm", "num_codebooks": books, "nbits_per_codebook": bits, "out_group_size": out,
                  "in_group_size": width, "linear_weights_not_to_quantize": ["lm_head.weight"]}
        size = 1 if kind == "i8" else 2
        codes = bytes(i * 5 % 16 for i in range(rows * cols * books)) if size == 1 else struct.pack(
            f"<{rows * cols * books}h", *(i * 97 % 2048 for i in range(rows * cols * books)))
        count = books * 2**bits * out * width
        save("aqlm", f"{books}x{bits}g{width}", {"quantization_config": config}, None,
             [("a.codes", kind, [rows, cols, books], codes), ("a.scales", "f16", [rows, 1, 1, 1], b"\0<" * rows),
              ("a.codebooks", "f16", [books, 2**bits, out, width], (b"\0<\0\x38" * 64)[: 2 * min(count, 64)])])


gptq()
awq()
bnb()
aqlm()
