// Writes a checkpoint folder of a Llama with random weights, tensor by tensor, plain or as a quantizer would have:
//
//   nibble_make_random_model FOLDER [--format bf16|gptq4|gptq8|awq|nf4|nf4-nested|int8|aqlm] [--layers 22] ...
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>

#include "base/dtype.h"
#include "base/error.h"
#include "base/rng.h"
#include "random_tensors.h"
#include "report.h"

namespace nibble::bench {
namespace {

std::string dtype_name(DType dtype) {
  switch (dtype) {
    case DType::bf16: return "BF16";
    case DType::f16: return "F16";
    case DType::f32: return "F32";
    case DType::i32: return "I32";
    case DType::i16: return "I16";
    case DType::i8: return "I8";
    default: return "U8";
  }
}

std::string header_of(const std::vector<Named>& list) {
  std::string json = "{\"__metadata__\":{\"format\":\"pt\"}";
  std::int64_t at = 0;
  for (const Named& t : list) {
    json += cat(",\"", t.name, "\":{\"dtype\":\"", dtype_name(t.dtype), "\",\"shape\":[");
    for (std::size_t i = 0; i < t.shape.size(); ++i) json += cat(i > 0 ? "," : "", t.shape[i]);
    json += cat("],\"data_offsets\":[", at, ",", at + t.size_bytes(), "]}");
    at += t.size_bytes();
  }
  json += "}";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  return json;
}

/// Elements [first, first + count) of `t` into `to`.
void fill(const Named& t, std::int64_t first, std::int64_t count, Rng& rng, std::byte* to) {
  const bool words = t.dtype == DType::i32;
  switch (t.fill) {
    case Fill::bytes:
      std::memcpy(to, t.text.data() + first * static_cast<std::int64_t>(size_of(t.dtype)),
                  static_cast<std::size_t>(count) * size_of(t.dtype));
      return;
    case Fill::random:
      for (std::int64_t i = 0; i < count * static_cast<std::int64_t>(size_of(t.dtype)); i += 8) {
        const std::uint64_t eight = rng.next();
        std::memcpy(to + i, &eight, 8);
      }
      return;
    case Fill::uniform:
      for (std::int64_t i = 0; i < count; ++i)
        store_from_f32(t.dtype, to, i, static_cast<float>(t.value * (2 * rng.uniform() - 1)));
      return;
    case Fill::constant:
    case Fill::ramp:
      for (std::int64_t i = 0; i < count; ++i) {
        const double value =
            t.fill == Fill::ramp ? static_cast<double>((first + i) / static_cast<std::int64_t>(t.value)) : t.value;
        if (!words) {
          store_from_f32(t.dtype, to, i, static_cast<float>(value));
          continue;
        }
        const auto word = static_cast<std::uint32_t>(value);
        std::memcpy(to + 4 * i, &word, 4);
      }
  }
}

void write_tensor(const Named& t, Rng& rng, std::ofstream& out) {
  constexpr std::int64_t kAtOnce = 1 << 20;
  std::vector<std::byte> values(static_cast<std::size_t>(std::min(kAtOnce, t.count())) * size_of(t.dtype) + 8);
  for (std::int64_t done = 0; done < t.count(); done += kAtOnce) {
    const std::int64_t count = std::min(kAtOnce, t.count() - done);
    fill(t, done, count, rng, values.data());
    out.write(reinterpret_cast<const char*>(values.data()), count * static_cast<std::int64_t>(size_of(t.dtype)));
  }
}

void write_config(const std::filesystem::path& file, const LlamaShape& s, const std::string& format) {
  const std::string quantized = quantization_config(format);
  std::ofstream config(file);
  config << "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": " << s.hidden
         << ", \"intermediate_size\": " << s.inner << ", \"num_hidden_layers\": " << s.layers
         << ", \"num_attention_heads\": " << s.heads << ", \"num_key_value_heads\": " << s.kv_heads
         << ", \"vocab_size\": " << s.vocab
         << ", \"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, \"hidden_act\": "
            "\"silu\", "
            "\"tie_word_embeddings\": false, \"torch_dtype\": \""
         << (quantized.empty() ? "bfloat16" : "float16") << "\", \"bos_token_id\": 1, \"eos_token_id\": 2";
  if (!quantized.empty()) config << ", \"quantization_config\": " << quantized;
  config << "}\n";
  if (!config) throw runtime_failure("cannot write ", file.string());
}

int run(int argc, char** argv) {
  if (argc < 2)
    throw bad_input(
        "usage: nibble_make_random_model FOLDER [--format F] [--layers N] [--hidden N] [--inner N] [--vocab N]");
  LlamaShape s;
  s.layers = std::stoll(option(argc, argv, "layers", std::to_string(s.layers)));
  s.hidden = std::stoll(option(argc, argv, "hidden", std::to_string(s.hidden)));
  s.inner = std::stoll(option(argc, argv, "inner", std::to_string(s.inner)));
  s.vocab = std::stoll(option(argc, argv, "vocab", std::to_string(s.vocab)));
  const std::string format = option(argc, argv, "format", "bf16");
  const std::filesystem::path folder = argv[1];
  const std::vector<Named> list = tensors_of(s, format);
  std::filesystem::create_directories(folder);
  write_config(folder / "config.json", s, format);
  const std::string header = header_of(list);
  std::ofstream out(folder / "model.safetensors", std::ios::binary);
  const auto size = static_cast<std::uint64_t>(header.size());
  out.write(reinterpret_cast<const char*>(&size), 8);
  out << header;
  Rng rng(1);
  for (const Named& t : list) write_tensor(t, rng, out);
  if (!out) throw runtime_failure("cannot write ", folder.string());
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
