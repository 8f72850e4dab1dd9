// What the layouts promise apart from speed: exact values, exact packing, refusal of wrong parts.
#include "layout/layout.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "layout/affine/affine.h"
#include "layout/codebook/codebook.h"
#include "layout/dense/dense.h"
#include "layout/lut4/lut4.h"
#include "layout/rows8/llm_int8.h"
#include "layout/rows8/rows8.h"

namespace nibble {
namespace {

struct Machine {
  ThreadPool pool{2};
  Arena arena;
  Exec exec{.target = Target::ref, .pool = pool, .arena = arena, .compute = DType::f32};
};

affine::Plain random_plain(std::int64_t rows, std::int64_t cols, std::int64_t group, std::int32_t bits, DType dtype) {
  Rng rng(static_cast<std::uint64_t>(rows * 131 + cols * 17 + bits));
  affine::Plain p{.rows = rows,
                  .cols = cols,
                  .group = group,
                  .bits = bits,
                  .dtype = dtype,
                  .codes = {},
                  .scale = {},
                  .offset = {},
                  .order = {}};
  p.offset_kind = bits % 2 == 0 ? affine::Offset::shift : affine::Offset::zero_point;
  for (std::int64_t i = 0; i < rows * cols; ++i)
    p.codes.push_back(static_cast<std::uint8_t>(rng.next() % (1U << bits)));
  for (std::int64_t i = 0; i < rows * affine::groups_of(cols, group); ++i) {
    p.scale.push_back(round_to(dtype, 0.01F + 0.001F * static_cast<float>(rng.next() % 97)));
    p.offset.push_back(round_to(dtype, static_cast<float>(rng.next() % (1U << bits))));
  }
  return p;
}

TEST(Layout, ListHasAllWithCompleteReference) {
  ASSERT_EQ(all_layouts().size(), 5U);
  for (const Layout* layout : all_layouts()) {
    const Kernels* ref = layout->kernels[static_cast<std::size_t>(Target::ref)];
    ASSERT_NE(ref, nullptr) << layout->name;
    EXPECT_NE(ref->matmul, nullptr) << layout->name;
    EXPECT_NE(ref->decode, nullptr) << layout->name;
  }
}

TEST(Affine, UnpackInvertsPackForEveryWidthAndTail) {
  Machine m;
  for (std::int32_t bits = 1; bits <= 8; ++bits) {
    for (const std::int64_t cols : {1, 31, 32, 33, 127, 128, 172, 352}) {
      for (const std::int64_t group : {1, 7, 32, 128, 1000}) {
        const affine::Plain p = random_plain(3, cols, group, bits, DType::bf16);
        const QTensor w = affine::pack(p, m.exec);
        const affine::Plain back = affine::unpack(w, m.exec);
        ASSERT_EQ(back.codes, p.codes) << bits << " bits, " << cols << " columns";
        ASSERT_EQ(back.scale, p.scale);
        ASSERT_EQ(back.offset, p.offset);
        ASSERT_EQ(back.group, p.group);
        ASSERT_EQ(back.offset_kind, p.offset_kind);
      }
    }
  }
}

TEST(Affine, DecodeRoundsInTheStatedOrder) {
  Machine m;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const std::int32_t bits : {3, 4}) {
      const affine::Plain p = random_plain(2, 172, 32, bits, dtype);
      const QTensor w = affine::pack(p, m.exec);
      std::vector<float> values(2 * 172);
      decode(w, 0, 2, values.data(), m.exec);
      for (std::size_t i = 0; i < values.size(); ++i) {
        const std::size_t group = i / 172 * 6 + i % 172 / 32;
        const auto q = static_cast<float>(p.codes[i]);
        const float expected = bits == 4 ? round_to(dtype, round_to(dtype, p.scale[group] * q) - p.offset[group])
                                         : round_to(dtype, p.scale[group] * (q - p.offset[group]));
        ASSERT_EQ(values[i], expected) << name_of(dtype) << " " << i;
      }
    }
  }
}

TEST(Affine, RefusesWrongParts) {
  Machine m;
  const affine::Plain good = random_plain(2, 40, 32, 4, DType::f32);
  const auto refused = [&](auto&& spoil) {
    affine::Plain p = good;
    spoil(p);
    EXPECT_THROW(affine::pack(p, m.exec), Error);
  };
  refused([](affine::Plain& p) { p.bits = 0; });
  refused([](affine::Plain& p) { p.bits = 9; });
  refused([](affine::Plain& p) { p.group = 0; });
  refused([](affine::Plain& p) { p.rows = -1; });
  refused([](affine::Plain& p) { p.dtype = DType::i8; });
  refused([](affine::Plain& p) { p.codes.pop_back(); });
  refused([](affine::Plain& p) { p.codes[3] = 16; });
  refused([](affine::Plain& p) { p.scale.push_back(1); });
  refused([](affine::Plain& p) { p.offset.clear(); });
}

TEST(Affine, OrderMovesColumnsForEveryTarget) {
  Machine m;
  for (const DType stored : {DType::f32, DType::f16, DType::bf16}) {
    for (const std::int32_t bits : {2, 3, 4, 8}) {
      const std::int64_t rows = 67, cols = 160, group = 32, count = 3;
      affine::Plain p = random_plain(rows, cols, group, bits, stored);
      const QTensor plain = affine::pack(p, m.exec);
      // Scales stay as they are stored, values are exact products in f32.
      affine::Parts parts{.rows = rows,
                          .cols = cols,
                          .group = group,
                          .bits = bits,
                          .offset_kind = p.offset_kind,
                          .dtype = DType::f32,
                          .scale = Tensor(plain.part[1]),
                          .offset = Tensor(plain.part[2]),
                          .order = Tensor({cols}, DType::i32)};
      for (std::int64_t j = 0; j < cols; ++j)
        parts.order.as<std::int32_t>()[static_cast<std::size_t>(j)] = static_cast<std::int32_t>(j * 37 % cols);
      const auto fill = [&](const affine::CodeBlock& block) {
        for (std::int64_t r = 0; r < block.rows; ++r) {
          std::copy_n(p.codes.data() + (block.row0 + r) * cols + block.col0, block.cols,
                      block.codes + r * affine::kBlockCols);
        }
      };
      const QTensor w = affine::pack_blocks(parts, fill, m.exec);
      EXPECT_EQ(affine::unpack(w, m.exec).codes, p.codes);
      std::vector<float> x(static_cast<std::size_t>(count * cols)), expected(static_cast<std::size_t>(rows * cols));
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 11) - 5;
      for (std::int64_t i = 0; i < rows * cols; ++i) {
        const std::int64_t r = i / cols, j = i % cols, g = r * 5 + j / group, to = r * cols + j * 37 % cols;
        expected[static_cast<std::size_t>(to)] =
            affine::value_of(DType::f32, p.offset_kind, p.scale[static_cast<std::size_t>(g)],
                             p.offset[static_cast<std::size_t>(g)], p.codes[static_cast<std::size_t>(i)]);
      }
      for (const Target target : {Target::ref, Target::cpu}) {
        m.exec.target = target;
        std::vector<float> values(expected.size()), y(static_cast<std::size_t>(count * rows));
        decode(w, 0, rows, values.data(), m.exec);
        ASSERT_EQ(values, expected) << name_of(stored) << " " << bits << " bits, target " << static_cast<int>(target);
        matmul(w, {.x = x.data(), .m = count, .ldx = cols, .y = y.data(), .ldy = rows}, m.exec);
        for (std::int64_t i = 0; i < count; ++i) {
          for (std::int64_t r = 0; r < rows; ++r) {
            double sum = 0, size = 0;
            for (std::int64_t k = 0; k < cols; ++k) {
              const double product = static_cast<double>(x[static_cast<std::size_t>(i * cols + k)]) *
                                     expected[static_cast<std::size_t>(r * cols + k)];
              sum += product;
              size += std::abs(product);
            }
            ASSERT_NEAR(y[static_cast<std::size_t>(i * rows + r)], sum, 1e-6 * size);
          }
        }
      }
      parts.order.as<std::int32_t>()[1] = 0;
      EXPECT_THROW(affine::pack_blocks(parts, fill, m.exec), Error);
    }
  }
}

TEST(Rows8, ValuesAndScaleForAllRows) {
  Machine m;
  Tensor q({2, 3}, DType::i8);
  const std::int8_t codes[] = {-128, 0, 127, 1, 2, 3};
  std::copy_n(codes, 6, q.as<std::int8_t>().begin());
  Tensor scale({1}, DType::f32);
  scale.as<float>()[0] = 0.3F;
  const QTensor w = rows8::make(q, scale, DType::bf16, q.owner());
  std::vector<float> values(6);
  decode(w, 0, 2, values.data(), m.exec);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(values[i], round_to(DType::bf16, 0.3F * codes[i]));
  EXPECT_THROW(rows8::make(q, Tensor({3}, DType::f32), DType::f32, nullptr), Error);
  EXPECT_THROW(rows8::make(scale, scale, DType::f32, nullptr), Error);
  EXPECT_THROW(rows8::make(q, scale, DType::i8, nullptr), Error);
  EXPECT_THROW(rows8::make(q, Tensor({2}, DType::i8), DType::f32, nullptr), Error);
}

lut4::Source lut4_source() {
  lut4::Source s;
  s.rows = 3;
  s.cols = 33;
  s.block = 32;
  s.codes = Tensor({50}, DType::u8);
  s.scale = Tensor({4}, DType::f32);
  s.table = &lut4::kNf4;
  return s;
}

TEST(Lut4, BlocksCrossRowsAndTheFirstWeightIsTheHighNibble) {
  Machine m;
  Tensor codes({50}, DType::u8), scale({4}, DType::f32);
  for (int i = 0; i < 50; ++i) codes.data()[i] = static_cast<std::byte>(0x10 * (i % 16) + 15 - i % 16);
  for (int i = 0; i < 4; ++i) scale.as<float>()[static_cast<std::size_t>(i)] = static_cast<float>(1 + i);
  lut4::Source source = lut4_source();
  source.codes = codes;
  source.scale = scale;
  std::vector<float> values(99);
  decode(lut4::make(source), 0, 3, values.data(), m.exec);
  for (int i = 0; i < 99; ++i) {
    const int code = i % 2 == 0 ? i / 2 % 16 : 15 - i / 2 % 16;
    EXPECT_EQ(values[static_cast<std::size_t>(i)],
              lut4::kNf4[static_cast<std::size_t>(code)] * static_cast<float>(1 + i / 32))
        << i;
  }
}

TEST(Lut4, RefusesWrongParts) {
  const auto refused = [](auto&& spoil) {
    lut4::Source s = lut4_source();
    spoil(s);
    EXPECT_THROW(lut4::make(s), Error);
  };
  EXPECT_EQ(lut4::make(lut4_source()).size_bytes(), 50 + 16 + 64);
  refused([](lut4::Source& s) { s.block = 0; });
  refused([](lut4::Source& s) { s.rows = -1; });
  refused([](lut4::Source& s) { s.cols = 34; });
  refused([](lut4::Source& s) { s.dtype = DType::i8; });
  refused([](lut4::Source& s) { s.codes = Tensor({49}, DType::u8); });
  refused([](lut4::Source& s) { s.scale = Tensor({5}, DType::f32); });
  refused([](lut4::Source& s) { s.scale = Tensor({4}, DType::u8); });
  refused([](lut4::Source& s) { s.nested = lut4::Nested{.offset = 0, .block = 256, .dtype = DType::f32}; });
}

TEST(Codebook, SumsVectorsInOrderAndScales) {
  Machine m;
  // 2 codebooks of 4 entries for groups of 2 outputs x 3 inputs; 4 x 6 weights.
  Tensor codes({2, 2, 2}, DType::i8), books({2, 4, 2, 3}, DType::f32), scale({2, 1, 1, 1}, DType::f16);
  for (int i = 0; i < 8; ++i) codes.data()[i] = static_cast<std::byte>(i % 4 - 2);  // -2, -1 mean 2, 3
  for (int i = 0; i < 48; ++i) books.as<float>()[static_cast<std::size_t>(i)] = 0.1F * static_cast<float>(i);
  for (int i = 0; i < 2; ++i) store_from_f32(DType::f16, scale.data(), i, 0.5F + static_cast<float>(i));
  std::vector<float> values(24);
  decode(codebook::make(codes, books, scale, nullptr, m.exec), 0, 4, values.data(), m.exec);
  for (int row = 0; row < 4; ++row) {
    for (int col = 0; col < 6; ++col) {
      float sum = 0;
      for (int k = 0; k < 2; ++k) {
        const int at = (row / 2 * 2 + col / 3) * 2 + k, entry = (at % 4 + 2) % 4;
        sum += 0.1F * static_cast<float>(((k * 4 + entry) * 2 + row % 2) * 3 + col % 3);
      }
      EXPECT_EQ(values[static_cast<std::size_t>(row * 6 + col)], sum * (row < 2 ? 0.5F : 1.5F)) << row << " " << col;
    }
  }
}

TEST(Codebook, RefusesWrongParts) {
  Machine m;
  const Tensor codes({2, 2, 2}, DType::i8), books({2, 4, 2, 3}, DType::f16), scale({2, 1, 1, 1}, DType::f16);
  const auto refused = [&](const View& c, const View& b, const View& s) {
    EXPECT_THROW(codebook::make(c, b, s, nullptr, m.exec), Error);
  };
  refused(Tensor({2, 2, 3}, DType::i8), books, scale);
  refused(Tensor({2, 4}, DType::i8), books, scale);
  refused(Tensor({2, 2, 2}, DType::u8), books, scale);
  refused(codes, Tensor({2, 5, 2, 3}, DType::f16), scale);
  refused(codes, Tensor({2, 512, 2, 3}, DType::f16), scale);
  refused(codes, Tensor({2, 0, 2, 3}, DType::f16), scale);
  refused(codes, Tensor({2, 4, 6}, DType::f16), scale);
  refused(codes, books, Tensor({4}, DType::f16));
  refused(codes, books, Tensor({2}, DType::i32));
  Tensor outside({2, 2, 2}, DType::i8);
  outside.data()[3] = std::byte{2};
  refused(outside, books, scale);
}

TEST(LlmInt8, RefusesWrongParts) {
  const Tensor q({2, 3}, DType::i8), absmax({2}, DType::f32);
  EXPECT_EQ(rows8::threshold_of(rows8::make_llm_int8(q, absmax, 6, nullptr)), 6);
  EXPECT_THROW(rows8::make_llm_int8(q, absmax, -1, nullptr), Error);
  EXPECT_THROW(rows8::make_llm_int8(q, absmax, NAN, nullptr), Error);
  EXPECT_THROW(rows8::make_llm_int8(q, Tensor({1}, DType::f32), 6, nullptr), Error);
  EXPECT_THROW(rows8::make_llm_int8(q, Tensor({2}, DType::f16), 6, nullptr), Error);
  EXPECT_THROW(rows8::make_llm_int8(Tensor({2, 3}, DType::f8_e5m2), absmax, 6, nullptr), Error);
}

TEST(Dense, RefusesWhatIsNotAFloatMatrix) {
  EXPECT_THROW(dense::make(Tensor({2, 2}, DType::i8), nullptr), Error);
  EXPECT_THROW(dense::make(Tensor({4}, DType::f32), nullptr), Error);
  EXPECT_EQ(dense::make(Tensor({2, 5}, DType::bf16), nullptr).size_bytes(), 20);
}

TEST(Reference, MatmulIsTheDoubleSumOfRoundedInputs) {
  Machine m;
  m.exec.compute = DType::bf16;
  Rng rng(3);
  const std::int64_t rows = 5, cols = 37, count = 3;
  Tensor weight({rows, cols}, DType::f32);
  for (float& value : weight.as<float>()) value = static_cast<float>(rng.uniform()) - 0.5F;
  std::vector<float> x(static_cast<std::size_t>(count * 40)), bias(rows, 0.25F),
      y(static_cast<std::size_t>(count * 6), -1);
  for (float& value : x) value = static_cast<float>(rng.uniform());
  const QTensor w = dense::make(weight, weight.owner());
  matmul(w, {.x = x.data(), .m = count, .ldx = 40, .y = y.data(), .ldy = 6, .bias = bias.data()}, m.exec);
  for (std::int64_t i = 0; i < count; ++i) {
    EXPECT_EQ(y[static_cast<std::size_t>(i * 6 + 5)], -1);  // beyond the rows nothing is written
    for (std::int64_t n = 0; n < rows; ++n) {
      double sum = 0.25;
      for (std::int64_t k = 0; k < cols; ++k) {
        sum += static_cast<double>(round_to(DType::bf16, x[static_cast<std::size_t>(i * 40 + k)])) *
               round_to(DType::bf16, weight.view().at(n * cols + k));
      }
      EXPECT_FLOAT_EQ(y[static_cast<std::size_t>(i * 6 + n)], static_cast<float>(sum));
    }
  }
}

TEST(Affine, WordsPackAsCodesDo) {
  Machine m;
  for (const std::int32_t bits : {4, 8}) {
    const std::int64_t per_word = 32 / bits;
    for (const Shape& shape : {Shape{1, 128}, Shape{17, 384}, Shape{64, 32}, Shape{70, 160}, Shape{130, 44}}) {
      const std::int64_t rows = shape[0], cols = shape[1];
      affine::Plain plain = random_plain(rows, cols, 32, bits, DType::f32);
      affine::Parts parts{.rows = rows,
                          .cols = cols,
                          .group = 32,
                          .bits = bits,
                          .offset_kind = plain.offset_kind,
                          .dtype = DType::f32,
                          .scale = Tensor({rows, affine::groups_of(cols, 32)}, DType::f32),
                          .offset = Tensor({rows, affine::groups_of(cols, 32)}, DType::f32),
                          .order = {}};
      convert_from_f32(DType::f32, plain.scale.data(), parts.scale.data(), parts.scale.count());
      convert_from_f32(DType::f32, plain.offset.data(), parts.offset.data(), parts.offset.count());
      const QTensor words = affine::pack_words(
          parts,
          [&](const affine::WordBlock& block) {
            for (std::int64_t r = 0; r < block.rows; ++r) {
              for (std::int64_t k = 0; k < block.cols; ++k) {
                std::uint32_t& word = block.words[k / per_word * affine::kBlockRows + r];
                if (k % per_word == 0) word = 0;
                word |= static_cast<std::uint32_t>(
                            plain.codes[static_cast<std::size_t>((block.row0 + r) * cols + block.col0 + k)])
                        << (k % per_word * bits);
              }
            }
          },
          m.exec);
      EXPECT_EQ(affine::unpack(words, m.exec).codes, plain.codes) << bits << " bits, " << rows << " x " << cols;
    }
  }
}

}  // namespace
}  // namespace nibble
