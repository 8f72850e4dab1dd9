#!/usr/bin/env python3
"""Makes what the tests of encoder-decoders and encoders compare with, by Hugging Face Transformers and bitsandbytes.

  make_encoder_goldens.py OUT [NAME...]      small random models -> OUT/<name>/, buckets -> OUT/relative_buckets.safetensors

A model folder gets config.json, model.safetensors (bf16 weights) and outputs.safetensors, all computed in f32 and bf16:
  T5     ids.I, decoder_ids.I; logits_f32.I, logits_bf16.I [decoder tokens, vocab]; generated.I: greedy, after the start
  BERT   ids.I, types.I; last_hidden_state_f32.I, ...; pooler_output_f32.I, ... where the model has a pooler
  ViT    pixel_values [n, c, h, w]; logits_f32, ... [n, classes] or last_hidden_state_f32 [n, tokens, hidden], pooler_output_f32
  *-nf4  the same of a model that bitsandbytes quantized, computed by it in f32 (weights as quantized)

Made with transformers 5.24.0, bitsandbytes 0.50.2 and torch 2.13.0 (CPU). None is needed to build
or test nibble.
"""
import json
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import save_file
from transformers import (BertConfig, BertForMaskedLM, BertModel, BitsAndBytesConfig, T5Config,
                          T5ForConditionalGeneration, ViTConfig, ViTForImageClassification, ViTModel)
from transformers.models.t5.modeling_t5 import T5Attention

torch.set_num_threads(1)
torch.set_grad_enabled(False)

T5 = dict(vocab_size=96, d_model=48, d_kv=16, d_ff=80, num_layers=2, num_heads=4, decoder_start_token_id=0,
          pad_token_id=0, eos_token_id=1)
BERT = dict(vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64)
VIT = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4)
BUCKETS = ((32, 128), (8, 20), (4, 3), (64, 1000), (32, 129), (16, 4096))


def flan(config):
    """As Transformers 4 wrote flan-T5."""
    config = dict(config)
    config.pop("scale_decoder_outputs", None)
    config["tie_word_embeddings"] = False
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.2"
    return config


MODELS = {
    "t5": (T5ForConditionalGeneration, T5Config, T5, None),
    "flan-t5": (T5ForConditionalGeneration, T5Config,
                dict(T5, d_kv=12, num_layers=3, num_decoder_layers=2, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
                     relative_attention_num_buckets=8, relative_attention_max_distance=20), flan),
    "bert": (BertModel, BertConfig, BERT, None),
    "bert-mlm": (BertForMaskedLM, BertConfig, dict(BERT, hidden_act="gelu_new", type_vocab_size=1), None),
    "vit": (ViTForImageClassification, ViTConfig,
            dict(VIT, image_size=12, patch_size=4, num_labels=5), None),
    "vit-model": (ViTModel, ViTConfig, dict(VIT, image_size=[12, 20], patch_size=[4, 5], num_channels=2, qkv_bias=False,
                                            pooler_output_size=32), None),
}


# The quantized ones: other widths of the same models.
NF4 = {
    "flan-t5": dict(d_model=64, d_kv=16, d_ff=128, num_layers=2, num_decoder_layers=1),
    "vit": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=1),
}


def randomize(model):
    """Weights large enough that attention is not flat and every bias and norm matters."""
    generator = torch.Generator().manual_seed(1234)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "relative_attention_bias" in name:
            parameter.copy_(noise)
        elif parameter.dim() == 1:
            norm = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if norm else 0.2 * noise)
        elif parameter.dim() == 2:
            # T5 does not scale attention scores: small queries keep it from picking one key.
            small = 0.3 if name.endswith((".SelfAttention.q.weight", ".EncDecAttention.q.weight")) else 1.0
            parameter.copy_(noise * (1.2 * small / parameter.shape[-1] ** 0.5))
        else:
            parameter.copy_(noise * 0.5)


def inputs_of(model):
    generator = torch.Generator().manual_seed(99)
    config = model.config
    draw = lambda high, count: torch.randint(0, high, (count,), generator=generator)
    if config.model_type == "t5":
        return [dict(ids=draw(config.vocab_size, n), decoder_ids=draw(config.vocab_size, m)) for n, m in ((44, 37), (5, 9))]
    if config.model_type == "bert":
        return [dict(ids=draw(config.vocab_size, n), types=draw(config.type_vocab_size, n)) for n in (44, 5)]
    size = config.image_size if isinstance(config.image_size, (list, tuple)) else [config.image_size] * 2
    return torch.randn((3, config.num_channels, *size), generator=generator)


def run(model, one):
    kind = model.config.model_type
    if kind == "t5":
        out = model(input_ids=one["ids"][None], decoder_input_ids=one["decoder_ids"][None])
        return {"logits": out.logits[0]}
    if kind == "bert":
        base = getattr(model, "bert", model)
        out = base(input_ids=one["ids"][None], token_type_ids=one["types"][None])
        pooled = {} if out.pooler_output is None else {"pooler_output": out.pooler_output[0]}
        return {"last_hidden_state": out.last_hidden_state[0], **pooled}
    out = model(pixel_values=one.to(model.dtype))
    if hasattr(out, "logits"):
        return {"logits": out.logits}
    return {"last_hidden_state": out.last_hidden_state, "pooler_output": out.pooler_output}


def outputs_of(load, dtypes):
    golden = {}
    for dtype, key in dtypes:
        model = load(dtype)
        inputs = inputs_of(model)
        if torch.is_tensor(inputs):
            golden["pixel_values"] = inputs
            for name, x in run(model, inputs).items():
                golden[f"{name}_{key}"] = x.contiguous()
            continue
        for i, one in enumerate(inputs):
            for name, x in one.items():
                golden[f"{name}.{i}"] = x
            for name, x in run(model, one).items():
                golden[f"{name}_{key}.{i}"] = x.contiguous()
            if model.config.model_type == "t5" and key == "f32":
                made = model.generate(input_ids=one["ids"][None], max_new_tokens=12, do_sample=False)[0]
                golden[f"generated.{i}"] = made[1:].contiguous()
    return golden


def report(folder, golden):
    size = sum(f.stat().st_size for f in folder.iterdir())
    key = next(k for k in golden if "_f32" in k)
    largest = golden[key].abs().max()
    line = f"{folder.name}: {size} bytes, largest output {largest:.3f}"
    if key.replace("f32", "bf16") in golden:
        line += f", bf16 error {(golden[key.replace('f32', 'bf16')].float() - golden[key]).abs().max() / largest:.5f}"
    print(line)
    print("  ", {k: v.tolist() for k, v in golden.items() if k.startswith("generated")})


def make_random(name, fields, folder):
    """A random model of this name's class, saved in bf16."""
    cls, config_cls, _, change_config = MODELS[name]
    folder.mkdir(parents=True, exist_ok=True)
    model = cls(config_cls(**fields))
    randomize(model)
    if fields.get("tie_word_embeddings") is False:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape,
                                                              generator=torch.Generator().manual_seed(5)) * 0.2)
        model.config.tie_word_embeddings = False
    else:
        model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if change_config is not None:
        written = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(change_config(written), indent=2) + "\n")
    return cls


def make_model(out, name):
    folder = out / name
    cls = make_random(name, MODELS[name][2], folder)
    load = lambda dtype: cls.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    golden = outputs_of(load, ((torch.float32, "f32"), (torch.bfloat16, "bf16")))
    save_file(golden, folder / "outputs.safetensors")
    report(folder, golden)


def make_nf4(out, name):
    """Quantized and saved by bitsandbytes through Transformers, and run by it in f32. All widths are multiples of the 64
    weights that share a scale: for others bitsandbytes 0.50.2 dequantizes wrongly on a CPU (it starts a block with each
    row, which its files do not)."""
    folder = out / (name + "-nf4")
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    with tempfile.TemporaryDirectory() as plain:
        cls = make_random(name, dict(MODELS[name][2], **NF4[name]), pathlib.Path(plain))
        model = cls.from_pretrained(plain, dtype=torch.float32, quantization_config=quantization, device_map="cpu")
        model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    load = lambda dtype: cls.from_pretrained(folder, dtype=dtype, device_map="cpu", attn_implementation="eager").eval()
    golden = outputs_of(load, ((torch.float32, "f32"),))
    save_file(golden, folder / "outputs.safetensors")
    report(folder, golden)


def make_buckets(out):
    distances = torch.arange(-400, 401)
    golden = {}
    for buckets, far in BUCKETS:
        for both in (True, False):
            found = T5Attention._relative_position_bucket(distances, bidirectional=both, num_buckets=buckets,
                                                          max_distance=far)
            golden[f"{'both' if both else 'one'}_{buckets}_{far}"] = found.to(torch.int32)
    save_file(golden, out / "relative_buckets.safetensors")


def main():
    out, *names = sys.argv[1:]
    out = pathlib.Path(out)
    for name in MODELS:
        if not names or name in names:
            make_model(out, name)
    for name in NF4:
        if not names or name + "-nf4" in names:
            make_nf4(out, name)
    if not names:
        make_buckets(out)


main()
