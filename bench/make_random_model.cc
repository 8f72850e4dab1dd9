// Writes a checkpoint folder of a Llama with random bf16 weights, tensor by tensor: nibble_make_random_model FOLDER [--layers 22]
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>

#include "base/dtype.h"
#include "base/error.h"
#include "base/rng.h"
#include "chain.h"
#include "report.h"

namespace nibble::bench {
namespace {

struct Named {
  std::string name;
  std::vector<std::int64_t> shape;
};

std::vector<Named> tensors_of(const LlamaShape& s) {
  const std::int64_t kv = s.hidden / s.heads * s.kv_heads;
  std::vector<Named> list{{"model.embed_tokens.weight", {s.vocab, s.hidden}}, {"lm_head.weight", {s.vocab, s.hidden}}, {"model.norm.weight", {s.hidden}}};
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string layer = cat("model.layers.", i, ".");
    list.push_back({layer + "input_layernorm.weight", {s.hidden}});
    list.push_back({layer + "post_attention_layernorm.weight", {s.hidden}});
    list.push_back({layer + "self_attn.q_proj.weight", {s.hidden, s.hidden}});
    list.push_back({layer + "self_attn.k_proj.weight", {kv, s.hidden}});
    list.push_back({layer + "self_attn.v_proj.weight", {kv, s.hidden}});
    list.push_back({layer + "self_attn.o_proj.weight", {s.hidden, s.hidden}});
    list.push_back({layer + "mlp.gate_proj.weight", {s.inner, s.hidden}});
    list.push_back({layer + "mlp.up_proj.weight", {s.inner, s.hidden}});
    list.push_back({layer + "mlp.down_proj.weight", {s.hidden, s.inner}});
  }
  return list;
}

std::int64_t elements(const Named& t) { return t.shape.size() == 2 ? t.shape[0] * t.shape[1] : t.shape[0]; }

std::string header_of(const std::vector<Named>& list) {
  std::string json = "{\"__metadata__\":{\"format\":\"pt\"}";
  std::int64_t at = 0;
  for (const Named& t : list) {
    json += cat(",\"", t.name, "\":{\"dtype\":\"BF16\",\"shape\":[", t.shape[0]);
    if (t.shape.size() == 2) json += cat(",", t.shape[1]);
    json += cat("],\"data_offsets\":[", at, ",", at + 2 * elements(t), "]}");
    at += 2 * elements(t);
  }
  json += "}";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  return json;
}

/// Weights uniform with a spread that keeps activations near one; norms are ones.
void write_tensor(const Named& t, Rng& rng, std::ofstream& out) {
  const float spread = t.shape.size() == 2 ? 1.7F / std::sqrt(static_cast<float>(t.shape[1])) : 0;
  std::vector<std::uint16_t> values;
  for (std::int64_t done = 0; done < elements(t);) {
    const std::int64_t count = std::min<std::int64_t>(1 << 20, elements(t) - done);
    values.resize(static_cast<std::size_t>(count));
    for (std::uint16_t& value : values) value = f32_to_bf16(spread == 0 ? 1 : spread * static_cast<float>(2 * rng.uniform() - 1));
    out.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * 2));
    done += count;
  }
}

int run(int argc, char** argv) {
  if (argc < 2) throw bad_input("usage: nibble_make_random_model FOLDER [--layers N] [--hidden N] [--inner N] [--vocab N]");
  LlamaShape s;
  s.layers = std::stoll(option(argc, argv, "layers", std::to_string(s.layers)));
  s.hidden = std::stoll(option(argc, argv, "hidden", std::to_string(s.hidden)));
  s.inner = std::stoll(option(argc, argv, "inner", std::to_string(s.inner)));
  s.vocab = std::stoll(option(argc, argv, "vocab", std::to_string(s.vocab)));
  const std::filesystem::path folder = argv[1];
  std::filesystem::create_directories(folder);
  std::ofstream config(folder / "config.json");
  config << "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": " << s.hidden
         << ", \"intermediate_size\": " << s.inner << ", \"num_hidden_layers\": " << s.layers << ", \"num_attention_heads\": " << s.heads
         << ", \"num_key_value_heads\": " << s.kv_heads << ", \"vocab_size\": " << s.vocab
         << ", \"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, \"hidden_act\": \"silu\", "
            "\"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\", \"bos_token_id\": 1, \"eos_token_id\": 2}\n";
  const std::vector<Named> list = tensors_of(s);
  const std::string header = header_of(list);
  std::ofstream out(folder / "model.safetensors", std::ios::binary);
  const auto size = static_cast<std::uint64_t>(header.size());
  out.write(reinterpret_cast<const char*>(&size), 8);
  out << header;
  Rng rng(1);
  for (const Named& t : list) write_tensor(t, rng, out);
  if (!out || !config) throw runtime_failure("cannot write ", folder.string());
  return 0;
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  try {
    return nibble::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
