#!/usr/bin/env python3
"""Makes docs/accuracy.md: what quantizing costs in perplexity, nibble's quantizers beside the real libraries.

    python3 tools/accuracy_table.py NIBBLE --work FOLDER [--libraries FOLDER] [--only TEXT] [--out docs/accuracy.md]

Every checkpoint, nibble's or a library's, is measured by `nibble perplexity` (which agrees with Transformers to 1e-6,
tools/check_perplexity.py): perplexity, KL divergence from the bf16 model and how often both choose the same token.
FOLDER of --libraries holds what tools/quantize_with_library.py made, named as in LIBRARY below (gptq4-128, awq4-64,
hqq3-64, ...); rows without it say "-". Results are kept in --work, so that the script goes on where it stopped.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("nibble")
parser.add_argument("--work", required=True)
parser.add_argument("--libraries")
parser.add_argument("--model", default="models/demo")
parser.add_argument("--only", default="", help="measure rows whose name contains this text")
parser.add_argument("--threads", type=int, default=0)
parser.add_argument("--samples", type=int, default=32)
parser.add_argument("--out", default="docs/accuracy.md")
args = parser.parse_args()

DATA = ["--dataset", f"{args.model}/calibration_ids.json", "--samples", str(args.samples), "--seqlen", "512"]
REFINED = ["--asym", "--refine", "8", "--float-inputs", "0.5"]


def gptq(bits, group, *more):
    return ["--method", "gptq", "--bits", str(bits), "--group-size", str(group), *more, *DATA]


# (section, [(row's name, flags of nibble quantize, or the name of a library's checkpoint)])
SECTIONS = [
    ("GPTQ", [row for bits in (4, 3, 2) for group in (128, 64) for row in (
        (f"{bits} bits, groups of {group}: GPTQModel 7.7.0", f"gptq{bits}-{group}"),
        (f"{bits} bits, groups of {group}: nibble, same settings", gptq(bits, group)),
        (f"{bits} bits, groups of {group}: nibble, {' '.join(REFINED)}", gptq(bits, group, *REFINED)))]),
    ("AWQ", [row for group in (128, 64) for row in (
        (f"4 bits, groups of {group}: AutoAWQ 0.2.9", f"awq4-{group}"),
        (f"4 bits, groups of {group}: nibble, same settings", ["--method", "awq", "--group-size", str(group), *DATA]),
        (f"4 bits, groups of {group}: nibble, --awq-loss output, AutoAWQ's own measure",
         ["--method", "awq", "--awq-loss", "output", "--group-size", str(group), *DATA]),
        (f"4 bits, groups of {group}: nibble, --method gptq --format awq {' '.join(REFINED)}",
         gptq(4, group, "--format", "awq", *REFINED)))]),
    ("bitsandbytes", [
        ("NF4: nibble, the library's bytes", ["--method", "bnb-nf4"]),
        ("NF4: nibble, --search-absmax", ["--method", "bnb-nf4", "--search-absmax"]),
        ("NF4, double quantization: nibble, the library's bytes", ["--method", "bnb-nf4", "--double-quant"]),
        ("NF4, double quantization: nibble, --search-absmax", ["--method", "bnb-nf4", "--double-quant", "--search-absmax"]),
        ("FP4: nibble, the library's bytes", ["--method", "bnb-fp4"]),
        ("FP4: nibble, --search-absmax", ["--method", "bnb-fp4", "--search-absmax"]),
        ("LLM.int8: nibble, the library's bytes", ["--method", "llm-int8"])]),
    ("HQQ and Quanto", [row for bits, name in ((4, "int4"), (3, None), (2, "int2")) for row in (
        (f"{bits} bits, groups of 64: hqq 0.2.8, dequantized", f"hqq{bits}-64"),
        *([(f"{bits} bits, groups of 64: nibble, --method quanto --optimizer hqq",
            ["--method", "quanto", "--weights", name, "--optimizer", "hqq", "--group-size", "64"])] if name else []),
        *([(f"{bits} bits, groups of 128: nibble, --method quanto, the library's bytes",
            ["--method", "quanto", "--weights", name])] if name else []),
        (f"{bits} bits, groups of 64: nibble, --method gptq --algorithm rtn --asym --mse 2.4, no data",
         ["--method", "gptq", "--algorithm", "rtn", "--bits", str(bits), "--group-size", "64", "--asym", "--mse", "2.4"]))]),
    ("AQLM", [
        ("2x8, groups of 8: nibble", ["--method", "aqlm", "--aqlm", "2x8", *DATA]),
        ("2x8, groups of 8: nibble, --float-inputs 0.5", ["--method", "aqlm", "--aqlm", "2x8", "--float-inputs", "0.5", *DATA]),
    ]),
]


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def measured(folder):
    return run([args.nibble, "perplexity", folder, "-f", f"{args.model}/eval.txt", "--protocol", "gptq", "--ctx", "512",
                "--kl-base", args.model, "--threads", str(args.threads), "--json"])


def quantized(name, what):
    """Folder, bits per weight and seconds of a row; None where the library's checkpoint is missing."""
    if isinstance(what, str):
        folder = os.path.join(args.libraries or "", what)
        return (folder, {}) if args.libraries and os.path.exists(os.path.join(folder, "config.json")) else None
    folder = os.path.join(args.work, "checkpoint")
    shutil.rmtree(folder, ignore_errors=True)
    begin = time.time()
    plan = run([args.nibble, "quantize", args.model, "-o", folder, *what, "--threads", str(args.threads), "--no-check-kl",
                "--force", "--json"])
    return folder, {"bits": plan["bits_per_weight"], "seconds": time.time() - begin, "flags": what}


def load_results(path):
    return json.load(open(path)) if os.path.exists(path) else {}


def collect():
    os.makedirs(args.work, exist_ok=True)
    path = os.path.join(args.work, "results.json")
    results = load_results(path)
    for section, rows in SECTIONS:
        for name, what in rows:
            key = f"{section}: {name}"
            if key in results or args.only not in key:
                continue
            made = quantized(name, what)
            if made is None:
                continue
            result = {**made[1], **{k: v for k, v in measured(made[0]).items() if k in ("ppl", "stderr", "kl", "same_top")}}
            results[key] = result
            print(key, json.dumps(result), flush=True)
            json.dump(results, open(path, "w"), indent=1)
    if "base" not in results:
        results["base"] = measured(args.model)
        json.dump(results, open(path, "w"), indent=1)
    return results


def table(results):
    base = results["base"]["ppl"]
    lines = []
    for section, rows in SECTIONS:
        known = [(name, what, results.get(f"{section}: {name}")) for name, what in rows]
        if not any(result for _, _, result in known):
            continue
        lines += [f"## {section}", "| what | bits per weight | perplexity | rise | KL divergence | same top token |",
                  "|---|---:|---:|---:|---:|---:|"]
        for name, what, r in known:
            if r is None:
                lines.append(f"| {name} | - | - | - | - | - |")
                continue
            bits = f"{r['bits']:.2f}" if "bits" in r else ""
            lines.append(f"| {name} | {bits} | {r['ppl']:.2f} | {100 * (r['ppl'] / base - 1):+.2f} % | {r['kl']:.5f} | "
                         f"{100 * r['same_top']:.1f} % |")
        lines.append("")
    return "\n".join(lines)


def best(results):
    """The row of least divergence at each width, the libraries' and nibble's."""
    base = results["base"]["ppl"]
    lines = ["## Best at each width", "By KL divergence, which tells apart what perplexity cannot (its differences below half a percent are chance).", "",
             "| bits | the libraries' best | perplexity | KL | nibble's best | perplexity | KL |", "|---|---|---:|---:|---|---:|---:|"]
    for bits in (4, 3, 2):
        known = [(section, name, results[f"{section}: {name}"]) for section, rows in SECTIONS for name, _ in rows
                 if name.startswith(f"{bits} bits") and f"{section}: {name}" in results]
        cells = [f"{bits}"]
        for own in (False, True):
            of_side = [row for row in known if (": nibble" in row[1]) == own]
            if not of_side:
                return ""
            section, name, r = min(of_side, key=lambda row: row[2]["kl"])
            cells += [name.split(", ", 1)[1], f"{r['ppl']:.2f} ({100 * (r['ppl'] / base - 1):+.2f} %)", f"{r['kl']:.4f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n"


HEAD = """# Accuracy
What quantizing costs: perplexity of the demo model (`models/demo`, 6.8 M parameters; `eval.txt`, protocol gptq, ctx 512, {tokens} tokens),
its rise over bf16 ({base:.2f} +/- {stderr:.2f}), KL divergence from the bf16 model in nats per token, and how often both models put the same
token first. Calibration, where there is one: {samples} sequences of 512 tokens of `calibration_ids.json`, the same for the libraries.
Libraries ran on a CPU in float32. All checkpoints were measured by `nibble perplexity`. A model this small loses more
than a large one; the differences between methods are what counts.

Made by `tools/accuracy_table.py NIBBLE --work FOLDER --libraries FOLDER`; the libraries' checkpoints by `tools/quantize_with_library.py`.

"""

results = collect()
with open(args.out, "w") as file:
    base = results["base"]
    file.write(HEAD.format(base=base["ppl"], stderr=base["stderr"], tokens=base.get("tokens", "?"), samples=args.samples))
    file.write(best(results))
    text = table(results).rstrip()
    file.write(text + "\n")
    if "| - |" in text or "## AQLM" not in text:
        file.write("\nRows with `-` have not been measured yet; AQLM's figures are in performance.md.\n")
print("written", args.out, file=sys.stderr)
