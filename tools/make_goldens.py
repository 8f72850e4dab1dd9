#!/usr/bin/env python3
"""Makes the golden logits that the tests of `run` compare with, by Hugging Face Transformers.

  make_goldens.py models OUT            small random models of every family and variant -> OUT/<name>/
  make_goldens.py real OUT FOLDER...    logits of real models, read in place            -> OUT/<name>.safetensors

A model folder gets config.json, model.safetensors (bf16 weights) and golden.safetensors:
  ids.I               i64 [tokens]            I = 0, 1: a long and a short sequence
  logits_f32.I        f32 [tokens, vocab]     computed in f32
  logits_bf16.I       bf16 [tokens, vocab]    computed in bf16
A real model's file gets ids.I, rows.I (i64, positions) and logits_f32.I, logits_bf16.I of those positions only.

Made with transformers 5.23.0 and torch 2.13.0 (CPU); bloom, neox, starcoder2 and mixtral with 5.24.0 and 2.15.0. Neither is needed to build or test nibble.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)
torch.set_grad_enabled(False)

LONG, SHORT = 44, 5
SMALL = dict(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2)


def v4(config):
    """The same configuration as Transformers 4 wrote it."""
    config = dict(config)
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.2"
    rope = dict(config.pop("rope_parameters", None) or {})
    if rope:
        config["rope_theta"] = rope.pop("rope_theta")
        kind = rope.pop("rope_type")
        config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    return config


def renamed_fields(config, **names):
    return {names.get(key, key): value for key, value in config.items()}


def neox_v4(config):
    """Pythia's spelling of the rotary fields."""
    rope = config["rope_parameters"]
    config = {key: value for key, value in v4(config).items() if not key.startswith("rope_")}
    return dict(config, rotary_emb_base=rope["rope_theta"], rotary_pct=rope["partial_rotary_factor"])


def rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


def variants():
    """name -> (model_type, config fields, change of the written config or None, change of tensor names or None)"""
    gpt2 = dict(vocab_size=96, n_embd=48, n_layer=2, n_head=4, n_positions=64, bos_token_id=50256, eos_token_id=2)
    opt = dict(vocab_size=96, hidden_size=48, ffn_dim=80, num_hidden_layers=2, num_attention_heads=4,
               max_position_embeddings=64, bos_token_id=1, eos_token_id=2)
    window = dict(use_sliding_window=True, sliding_window=8, max_window_layers=1)
    original = {"original_max_position_embeddings": 16}
    bloom = dict(vocab_size=96, hidden_size=48, n_layer=2, n_head=6, bos_token_id=1, eos_token_id=2)
    neox = dict(vocab_size=96, hidden_size=64, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=64, bos_token_id=1, eos_token_id=2)
    mixtral = dict(SMALL, hidden_size=32, intermediate_size=40, num_local_experts=4, num_experts_per_tok=2)
    return {
        "llama": ("llama", dict(SMALL, **rope("default")), None, None),
        "llama-v4-bias-tied": ("llama", dict(SMALL, num_key_value_heads=4, attention_bias=True, mlp_bias=True,
                                             tie_word_embeddings=True), v4, None),
        "llama-v4-linear": ("llama", dict(SMALL, **rope("linear", factor=4.0)), v4, "module."),
        "llama-dynamic": ("llama", dict(SMALL, **rope("dynamic", factor=2.0), max_position_embeddings=24), None, None),
        "llama-llama3": ("llama", dict(SMALL, **rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                     **original)), None, None),
        "llama-v4-yarn": ("llama", dict(SMALL, **rope("yarn", factor=4.0, **original)), v4, None),
        "llama-yarn-mscale": ("llama", dict(SMALL, head_dim=16, **rope(
            "yarn", factor=4.0, beta_fast=8.0, beta_slow=2.0, mscale=0.8, mscale_all_dim=1.2, truncate=False,
            **original)), None, None),
        "llama-yarn-attention-factor": ("llama", dict(SMALL, **rope("yarn", factor=3.0, attention_factor=1.3,
                                                                    **original)), None, "base"),
        "mistral-v4-window": ("mistral", dict(SMALL, sliding_window=8), v4, None),
        "mistral": ("mistral", dict(SMALL, sliding_window=None, head_dim=16), None, None),
        "qwen2-v4": ("qwen2", dict(SMALL, use_sliding_window=False, tie_word_embeddings=True), v4, None),
        "qwen2-window": ("qwen2", dict(SMALL, **window), None, None),
        "qwen3": ("qwen3", dict(SMALL, head_dim=16, tie_word_embeddings=True), None, None),
        "qwen3-v4-window-bias": ("qwen3", dict(SMALL, head_dim=16, attention_bias=True, **window),
                                 lambda c: {k: x for k, x in v4(c).items() if k != "layer_types"}, None),
        "gpt2-v4": ("gpt2", gpt2, v4, None),
        "gpt2-scaled": ("gpt2", dict(gpt2, n_inner=80, activation_function="gelu",
                                     scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False), None, "base"),
        "opt": ("opt", dict(opt, activation_function="relu"), None, None),
        "opt-v4-350m": ("opt", dict(opt, do_layer_norm_before=False, word_embed_proj_dim=24), v4, None),
        "opt-bare": ("opt", dict(opt, enable_bias=False, layer_norm_elementwise_affine=False,
                                 _remove_final_layer_norm=True, tie_word_embeddings=False), None, "base"),
        "bloom": ("bloom", bloom, None, None),  # 6 heads: ALiBi slopes of two powers of two
        "bloom-v4-post-norm": ("bloom", dict(bloom, n_head=4, apply_residual_connection_post_layernorm=True),
                               lambda c: renamed_fields(v4(c), hidden_size="n_embed"), "base"),
        "neox": ("gpt_neox", dict(neox, rope_parameters={"rope_type": "default", "rope_theta": 10000.0,
                                                         "partial_rotary_factor": 0.25}), None, None),
        "neox-v4-sequential": ("gpt_neox", dict(neox, use_parallel_residual=False, attention_bias=False,
                                                hidden_act="gelu_fast", rope_parameters={
                                                    "rope_type": "default", "rope_theta": 500.0,
                                                    "partial_rotary_factor": 1.0}), neox_v4, "lm_head"),
        "starcoder2": ("starcoder2", dict(SMALL, num_key_value_heads=1, sliding_window=None, **rope("default")), None,
                       None),
        "starcoder2-v4-window": ("starcoder2", dict(SMALL, sliding_window=8, use_bias=False,
                                                    tie_word_embeddings=False), v4, None),
        "mixtral": ("mixtral", mixtral, None, "stacked"),
        "mixtral-v4-window": ("mixtral", dict(mixtral, num_local_experts=3, num_experts_per_tok=1, sliding_window=8),
                              v4, None),
    }


def randomize(model):
    """Weights large enough that attention is not flat and every bias and norm matters."""
    generator = torch.Generator().manual_seed(1234)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            norm = name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if norm else 0.2 * noise)
        else:
            parameter.copy_(noise * (1.2 / parameter.shape[-1] ** 0.5))


def renamed(name, how):
    if how == "module.":
        return "module." + name
    if how == "lm_head":
        return name.replace("embed_out", "lm_head")
    for prefix in ("model.decoder.", "model.", "transformer."):
        if how == "base" and name.startswith(prefix):
            return name[len(prefix):]
    return name


def stacked(weights):
    """A Mixtral checkpoint with the experts' matrices as Transformers 5 holds them in memory."""
    out = {}
    for name, tensor in weights.items():
        layer, found, rest = name.partition(".block_sparse_moe.")
        if not found:
            out[name] = tensor
        elif rest == "gate.weight":
            out[layer + ".mlp.gate.weight"] = tensor
    layers = {name.partition(".block_sparse_moe.")[0] for name in weights if ".block_sparse_moe." in name}
    for layer in sorted(layers):
        def experts(which, layer=layer):
            names = [n for n in weights if n.startswith(layer + ".block_sparse_moe.") and n.endswith(f".{which}.weight")]
            return torch.stack([weights[n] for n in sorted(names)])
        out[layer + ".mlp.experts.gate_up_proj"] = torch.cat([experts("w1"), experts("w3")], dim=1)
        out[layer + ".mlp.experts.down_proj"] = experts("w2")
    return out


def logits_of(model, ids):
    return model(input_ids=ids[None]).logits[0].contiguous()


def loaded(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def random_ids(config, seed, counts=(LONG, SHORT)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, config.vocab_size, (count,), generator=generator) for count in counts]


def clear_choices(folder, config):
    """Ids for which no router comes near a tie. Where rounding makes it choose another expert the logits jump, and an
    error bound says nothing."""
    model = loaded(folder, torch.float32)
    for seed in range(99, 3000):
        ids = random_ids(config, seed, (24, SHORT))
        scores = [s for x in ids for s in model(input_ids=x[None], output_router_logits=True).router_logits]
        scores = torch.cat(scores).sort(descending=True).values
        if (scores[:, config.num_experts_per_tok - 1] - scores[:, config.num_experts_per_tok]).min() > 0.06:
            return ids
    raise SystemExit(f"{folder}: no such ids")


def make_model(out, name, model_type, fields, change_config, rename):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    config = AutoConfig.for_model(model_type, **fields)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config)
    randomize(model)
    model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if change_config is not None:
        written = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(change_config(written), indent=2) + "\n")
    golden = {}
    for i, ids in enumerate(clear_choices(folder, config) if model_type == "mixtral" else random_ids(config, 99)):
        golden[f"ids.{i}"] = ids
        for dtype, key in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
            golden[f"logits_{key}.{i}"] = logits_of(loaded(folder, dtype), ids)
    save_file(golden, folder / "golden.safetensors")
    (folder / "golden.safetensors").chmod(0o644)
    if rename is not None:
        weights = load_file(folder / "model.safetensors")
        weights = stacked(weights) if rename == "stacked" else {renamed(k, rename): x for k, x in weights.items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    worst = (golden["logits_bf16.0"].float() - golden["logits_f32.0"]).abs().max() / golden["logits_f32.0"].abs().max()
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: {size} bytes, largest logit {golden['logits_f32.0'].abs().max():.3f}, bf16 error {worst:.5f}")


def make_real(out, folder):
    config = AutoConfig.from_pretrained(folder)
    context = config.max_position_embeddings
    golden = {}
    generator = torch.Generator().manual_seed(7)
    for i, count in enumerate((min(context, 160), 9)):
        ids = torch.randint(0, config.vocab_size, (count,), generator=generator)
        rows = torch.tensor(sorted({0, 1, count // 2, count - 1}))
        golden[f"ids.{i}"], golden[f"rows.{i}"] = ids, rows
        for dtype, key in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
            golden[f"logits_{key}.{i}"] = logits_of(model, ids)[rows].contiguous()
    out.mkdir(parents=True, exist_ok=True)
    save_file(golden, out / (folder.name + ".safetensors"))
    print(folder.name, "done")


def main():
    what, out, *folders = sys.argv[1:]
    if what == "models":
        for name, (model_type, fields, change, rename) in variants().items():
            if not folders or name in folders:
                make_model(pathlib.Path(out), name, model_type, fields, change, rename)
    else:
        for folder in folders:
            make_real(pathlib.Path(out), pathlib.Path(folder))


main()
