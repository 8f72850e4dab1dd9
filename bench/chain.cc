#include "chain.h"

#include <algorithm>
#include <cstring>

#include "base/rng.h"
#include "layout/affine/affine.h"
#include "layout/codebook/codebook.h"
#include "layout/dense/dense.h"
#include "layout/lut4/lut4.h"
#include "layout/rows8/llm_int8.h"
#include "layout/rows8/rows8.h"

namespace nibble::bench {
namespace {

/// Random bytes; `mask` and `value` keep 16-bit floats small and finite.
void fill_random(std::span<std::byte> bytes, std::uint64_t and_mask, std::uint64_t or_mask, std::uint64_t seed) {
  Rng rng(seed);
  for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    const std::uint64_t word = (rng.next() & and_mask) | or_mask;
    std::memcpy(bytes.data() + i, &word, 8);
  }
}

QTensor random_dense(DType dtype, std::int64_t rows, std::int64_t cols) {
  Tensor weight({rows, cols}, dtype);
  if (dtype == DType::f32) {
    fill_random(weight.bytes(), 0x80ffffff80ffffffULL, 0x3c0000003c000000ULL, 7);
  } else {
    fill_random(weight.bytes(), 0x80ff80ff80ff80ffULL, 0x3c003c003c003c00ULL, 7);
  }
  return dense::make(weight, weight.owner());
}

QTensor random_rows8(DType dtype, std::int64_t rows, std::int64_t cols) {
  Tensor q({rows, cols}, dtype), scale({rows}, DType::bf16);
  fill_random(q.bytes(), dtype == DType::i8 ? ~0ULL : 0xbfbfbfbfbfbfbfbfULL, 0, 8);
  for (std::int64_t r = 0; r < rows; ++r) store_from_f32(DType::bf16, scale.data(), r, 0.01F);
  struct Both {
    Tensor q, scale;
  };
  const auto both = std::make_shared<Both>(Both{q, scale});
  return rows8::make(both->q, both->scale, DType::bf16, both);
}

QTensor random_affine(std::int32_t bits, std::int64_t rows, std::int64_t cols, Exec& exec) {
  affine::Plain p{.rows = rows,
                  .cols = cols,
                  .group = 128,
                  .bits = bits,
                  .offset_kind = affine::Offset::shift,
                  .dtype = DType::bf16,
                  .codes = {},
                  .scale = {},
                  .offset = {}};
  p.codes.resize(static_cast<std::size_t>(rows * cols));
  Rng rng(9);
  for (std::uint8_t& code : p.codes) code = static_cast<std::uint8_t>(rng.next() >> 40 & ((1U << bits) - 1));
  p.scale.assign(static_cast<std::size_t>(rows * affine::groups_of(cols, 128)), 0.0078125F);
  p.offset.assign(p.scale.size(), 0.0625F);
  return affine::pack(p, exec);
}

Tensor random_bytes(std::int64_t count, std::uint64_t seed) {
  Tensor bytes({count}, DType::u8);
  fill_random(bytes.bytes(), ~0ULL, 0, seed);
  return bytes;
}

Tensor constant(Shape shape, DType dtype, float value) {
  Tensor out(std::move(shape), dtype);
  for (std::int64_t i = 0; i < out.count(); ++i) store_from_f32(dtype, out.data(), i, value);
  return out;
}

/// As GPTQ and AWQ weights are: values in f32, scales and integer zero points in f16, groups of 128.
QTensor random_zero_point(std::int32_t bits, std::int64_t rows, std::int64_t cols, Exec& exec) {
  const Shape groups{rows, affine::groups_of(cols, 128)};
  affine::Parts parts{.rows = rows,
                      .cols = cols,
                      .group = 128,
                      .bits = bits,
                      .offset_kind = affine::Offset::zero_point,
                      .dtype = DType::f32,
                      .scale = constant(groups, DType::f16, 0.0078125F),
                      .offset = constant(groups, DType::f16, static_cast<float>(1 << (bits - 1))),
                      .order = {}};
  return affine::pack_blocks(
      std::move(parts),
      [bits](const affine::CodeBlock& block) {
        Rng rng(static_cast<std::uint64_t>(block.row0 * 7919 + block.col0));
        for (std::int64_t i = 0; i < block.rows * affine::kBlockCols; ++i)
          block.codes[i] = static_cast<std::uint8_t>(rng.next() >> (64 - bits));
      },
      exec);
}

QTensor random_nf4(bool nested, std::int64_t rows, std::int64_t cols) {
  struct Parts {
    Tensor codes, scale, nested_scale, nested_table;
  };
  const std::int64_t blocks = rows * cols / 64;
  const auto parts = std::make_shared<Parts>();
  parts->codes = random_bytes(rows * cols / 2, 11);
  parts->scale = nested ? random_bytes(blocks, 12) : constant({blocks}, DType::f32, 0.02F);
  lut4::Source source;
  source.rows = rows;
  source.cols = cols;
  source.block = 64;
  source.dtype = DType::f16;
  source.codes = parts->codes;
  source.scale = parts->scale;
  source.table = &lut4::kNf4;
  if (nested) {
    parts->nested_scale = constant({(blocks + 255) / 256}, DType::f32, 0.02F);
    parts->nested_table = constant({256}, DType::f32, 0.5F);
    source.nested_scale = parts->nested_scale;
    source.nested_table = parts->nested_table;
    source.nested = lut4::Nested{.offset = 0.01F, .block = 256, .dtype = DType::f32};
  }
  source.owner = parts;
  return lut4::make(source);
}

QTensor random_llm_int8(std::int64_t rows, std::int64_t cols) {
  const auto parts =
      std::make_shared<std::pair<Tensor, Tensor>>(random_bytes(rows * cols, 13), constant({rows}, DType::f32, 0.02F));
  return rows8::make_llm_int8(parts->first.view().cast(DType::i8).reshaped({rows, cols}), parts->second, 6.0F, parts);
}

/// AQLM's 1x16: one codebook of 65536 vectors of eight.
QTensor random_aqlm(std::int64_t rows, std::int64_t cols, Exec& exec) {
  struct Parts {
    Tensor codes, books, scale;
  };
  const auto parts = std::make_shared<Parts>();
  parts->codes = random_bytes(rows * cols / 4, 14);
  parts->books = Tensor({1, 65536, 1, 8}, DType::f16);
  fill_random(parts->books.bytes(), 0x83ff83ff83ff83ffULL, 0x2c002c002c002c00ULL, 15);
  parts->scale = constant({rows, 1, 1, 1}, DType::f16, 0.02F);
  return codebook::make(parts->codes.view().cast(DType::i16).reshaped({rows, cols / 8, 1}), parts->books, parts->scale,
                        parts, exec);
}

}  // namespace

QTensor random_weight(const std::string& kind, std::int64_t rows, std::int64_t cols, Exec& exec) {
  if (kind == "f32") return random_dense(DType::f32, rows, cols);
  if (kind == "f16") return random_dense(DType::f16, rows, cols);
  if (kind == "bf16") return random_dense(DType::bf16, rows, cols);
  if (kind == "int8") return random_rows8(DType::i8, rows, cols);
  if (kind == "float8") return random_rows8(DType::f8_e4m3fn, rows, cols);
  if (kind == "gptq4") return random_zero_point(4, rows, cols, exec);
  if (kind == "gptq8") return random_zero_point(8, rows, cols, exec);
  if (kind == "nf4" || kind == "nf4-nested") return random_nf4(kind != "nf4", rows, cols);
  if (kind == "llm-int8") return random_llm_int8(rows, cols);
  if (kind == "aqlm") return random_aqlm(rows, cols, exec);
  if (kind.size() == 4 && kind.substr(0, 3) == "int" && kind[3] >= '1' && kind[3] <= '7') {
    return random_affine(kind[3] - '0', rows, cols, exec);
  }
  throw bad_input(
      "weights: ", printable(kind),
      " is none of f32, f16, bf16, int8, float8, int1 ... int7, gptq4, gptq8, nf4, nf4-nested, llm-int8, aqlm");
}

Chain::Chain(const std::string& kind, const LlamaShape& s, bool with_head, Exec& exec) {
  const std::int64_t kv = s.hidden / s.heads * s.kv_heads;
  for (std::int64_t layer = 0; layer < s.layers; ++layer) {
    add(s.hidden, s.hidden, kind, exec);
    add(kv, s.hidden, kind, exec);
    add(kv, s.hidden, kind, exec);
    steps_.push_back(3);
    add(s.hidden, s.hidden, kind, exec);
    steps_.push_back(1);
    add(s.inner, s.hidden, kind, exec);
    add(s.inner, s.hidden, kind, exec);
    steps_.push_back(2);
    add(s.hidden, s.inner, kind, exec);
    steps_.push_back(1);
  }
  if (with_head) {
    add(s.vocab, s.hidden, kind, exec);
    steps_.push_back(1);
  }
}

void Chain::add(std::int64_t rows, std::int64_t cols, const std::string& kind, Exec& exec) {
  weights_.push_back(random_weight(kind, rows, cols, exec));
  bytes_ += weights_.back().size_bytes();
  elements_ += rows * cols;
  widest_in_ = std::max(widest_in_, cols);
  widest_out_ = std::max(widest_out_, rows);
}

void Chain::run(std::int64_t m, Exec& exec) {
  x_.resize(static_cast<std::size_t>(m * widest_in_), 0.5F);
  y_.resize(static_cast<std::size_t>(3 * m * widest_out_));
  std::size_t next = 0;
  std::vector<MatJob> jobs;
  for (const std::size_t step : steps_) {
    jobs.clear();
    for (std::size_t j = 0; j < step; ++j) {
      const QTensor& w = weights_[next++];
      jobs.push_back({&w,
                      {.x = x_.data(),
                       .m = m,
                       .ldx = w.cols,
                       .y = y_.data() + static_cast<std::int64_t>(j) * m * widest_out_,
                       .ldy = w.rows}});
    }
    matmul_many(jobs, exec);
  }
}

}  // namespace nibble::bench
