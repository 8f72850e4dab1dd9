#include "random_tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "layout/lut4/lut4.h"

namespace nibble::bench {
namespace {

constexpr std::int64_t kGroup = 128, kBlock = 64, kNestedBlock = 256;

/// The tensors of one linear [rows, cols].
using Linear = std::vector<Named> (*)(const std::string& module, std::int64_t rows, std::int64_t cols);

double spread(std::int64_t cols) { return 1 / std::sqrt(static_cast<double>(cols)); }

Named plain(const std::string& module, DType dtype, std::int64_t rows, std::int64_t cols) {
  return {module + ".weight", dtype, {rows, cols}, Fill::uniform, 1.7 * spread(cols), {}};
}

std::vector<Named> bf16(const std::string& module, std::int64_t rows, std::int64_t cols) {
  return {plain(module, DType::bf16, rows, cols)};
}

/// Codes uniform over 2^bits, zero points in their middle (z - 1 is stored).
template <int kBits>
std::vector<Named> gptq(const std::string& module, std::int64_t rows, std::int64_t cols) {
  const std::int64_t groups = cols / kGroup;
  const double scale = spread(cols) * std::sqrt(12) / (1 << kBits);
  return {{module + ".qweight", DType::i32, {cols * kBits / 32, rows}, Fill::random, 0, {}},
          {module + ".qzeros",
           DType::i32,
           {groups, rows * kBits / 32},
           Fill::constant,
           kBits == 4 ? 0x77777777 : 0x7f7f7f7f,
           {}},
          {module + ".scales", DType::f16, {groups, rows}, Fill::constant, scale, {}},
          {module + ".g_idx", DType::i32, {cols}, Fill::ramp, kGroup, {}}};
}

std::vector<Named> awq(const std::string& module, std::int64_t rows, std::int64_t cols) {
  const std::int64_t groups = cols / kGroup;
  return {{module + ".qweight", DType::i32, {cols, rows / 8}, Fill::random, 0, {}},
          {module + ".qzeros", DType::i32, {groups, rows / 8}, Fill::random, 0, {}},
          {module + ".scales", DType::f16, {groups, rows}, Fill::constant, spread(cols) / 6.5, {}}};
}

std::string floats(const std::vector<float>& values) {
  std::string bytes(values.size() * 4, '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string state_text(std::int64_t rows, std::int64_t cols, bool nested) {
  return cat(
      R"({"quant_type": "nf4", "blocksize": )", kBlock, R"(, "dtype": "float16", "shape": [)", rows, ", ", cols, "]",
      nested ? cat(R"(, "nested_blocksize": )", kNestedBlock, R"(, "nested_dtype": "float32", "nested_offset": 0.05})")
             : "}");
}

template <bool kNested>
std::vector<Named> nf4(const std::string& module, std::int64_t rows, std::int64_t cols) {
  const std::int64_t blocks = rows * cols / kBlock;
  const std::string weight = module + ".weight", state = state_text(rows, cols, kNested);
  const double largest = 1.9 * spread(cols);
  std::vector<Named> list{
      {weight, DType::u8, {rows * cols / 2, 1}, Fill::random, 0, {}},
      {weight + ".absmax",
       kNested ? DType::u8 : DType::f32,
       {blocks},
       kNested ? Fill::random : Fill::constant,
       largest,
       {}},
      {weight + ".quant_map", DType::f32, {16}, Fill::bytes, 0, floats({lut4::kNf4.begin(), lut4::kNf4.end()})},
      {weight + ".quant_state.bitsandbytes__nf4",
       DType::u8,
       {static_cast<std::int64_t>(state.size())},
       Fill::bytes,
       0,
       state}};
  if (kNested) {
    std::vector<float> table(256);
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<float>(static_cast<double>(i) / 127.5 - 1);
    list.push_back({weight + ".nested_absmax",
                    DType::f32,
                    {(blocks + kNestedBlock - 1) / kNestedBlock},
                    Fill::constant,
                    largest,
                    {}});
    list.push_back({weight + ".nested_quant_map", DType::f32, {256}, Fill::bytes, 0, floats(table)});
  }
  return list;
}

std::vector<Named> int8(const std::string& module, std::int64_t rows, std::int64_t cols) {
  return {{module + ".weight", DType::i8, {rows, cols}, Fill::random, 0, {}},
          {module + ".SCB", DType::f32, {rows}, Fill::constant, 1.7 * spread(cols), {}}};
}

/// One codebook of 2^16 vectors of eight.
std::vector<Named> aqlm(const std::string& module, std::int64_t rows, std::int64_t cols) {
  return {{module + ".codes", DType::i16, {rows, cols / 8, 1}, Fill::random, 0, {}},
          {module + ".codebooks", DType::f16, {1, 65536, 1, 8}, Fill::uniform, 1, {}},
          {module + ".scales", DType::f16, {rows, 1, 1, 1}, Fill::constant, 1.7 * spread(cols), {}}};
}

struct Format {
  const char* name;
  Linear linear;
  const char* config;
};

constexpr Format kFormats[] = {
    {"bf16", &bf16, ""},
    {"gptq4", &gptq<4>, R"({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": true, "desc_act": false})"},
    {"gptq8", &gptq<8>, R"({"quant_method": "gptq", "bits": 8, "group_size": 128, "sym": true, "desc_act": false})"},
    {"awq", &awq, R"({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": true, "version": "gemm"})"},
    {"nf4", &nf4<false>, R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"})"},
    {"nf4-nested", &nf4<true>,
     R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true})"},
    {"int8", &int8, R"({"quant_method": "bitsandbytes", "load_in_8bit": true})"},
    {"aqlm", &aqlm,
     R"({"quant_method": "aqlm", "num_codebooks": 1, "nbits_per_codebook": 16, "out_group_size": 1, "in_group_size": 8})"},
};

const Format& find(const std::string& name) {
  for (const Format& format : kFormats) {
    if (format.name == name) return format;
  }
  throw bad_input("format: ", printable(name), " is none of bf16, gptq4, gptq8, awq, nf4, nf4-nested, int8, aqlm");
}

}  // namespace

std::string quantization_config(const std::string& format) { return find(format).config; }

std::vector<Named> tensors_of(const LlamaShape& s, const std::string& format) {
  const Linear linear = find(format).linear;
  const DType dtype = format == "bf16" ? DType::bf16 : DType::f16;
  const std::int64_t kv = s.hidden / s.heads * s.kv_heads;
  std::vector<Named> list{plain("model.embed_tokens", dtype, s.vocab, s.hidden),
                          plain("lm_head", dtype, s.vocab, s.hidden)};
  const auto norm = [&](const std::string& module) {
    list.push_back({module + ".weight", dtype, {s.hidden}, Fill::constant, 1, {}});
  };
  const auto add = [&](const std::string& module, std::int64_t rows, std::int64_t cols) {
    for (Named& tensor : linear(module, rows, cols)) list.push_back(std::move(tensor));
  };
  norm("model.norm");
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string layer = cat("model.layers.", i, ".");
    norm(layer + "input_layernorm");
    norm(layer + "post_attention_layernorm");
    add(layer + "self_attn.q_proj", s.hidden, s.hidden);
    add(layer + "self_attn.k_proj", kv, s.hidden);
    add(layer + "self_attn.v_proj", kv, s.hidden);
    add(layer + "self_attn.o_proj", s.hidden, s.hidden);
    add(layer + "mlp.gate_proj", s.inner, s.hidden);
    add(layer + "mlp.up_proj", s.inner, s.hidden);
    add(layer + "mlp.down_proj", s.hidden, s.inner);
  }
  // Small types last, so that every tensor is aligned to its own.
  std::stable_sort(list.begin(), list.end(),
                   [](const Named& a, const Named& b) { return size_of(a.dtype) > size_of(b.dtype); });
  return list;
}

}  // namespace nibble::bench
