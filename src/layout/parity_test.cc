// Every CPU kernel against the reference: layouts x types x instruction sets x numbers of tokens x shapes with odd
// tails.
//
// Bound of one output: both sides use the same rounded inputs; the CPU sums k products in f32 in some order, so it is
// off by at most (k + 2) * 2^-24 * sum |x w| (Higham, Accuracy and Stability, ch. 3), plus, for rows8, one rounding of
// each value (2^-8 for bf16 ...) that the reference does and the product of codes does not.
#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "device/cpu/targets.h"
#include "hwy/highway.h"
#include "layout/affine/affine.h"
#include "layout/affine/kernels.h"
#include "layout/codebook/codebook.h"
#include "layout/codebook/kernels.h"
#include "layout/dense/dense.h"
#include "layout/dense/kernels.h"
#include "layout/lut4/kernels.h"
#include "layout/lut4/lut4.h"
#include "layout/rows8/kernels.h"
#include "layout/rows8/llm_int8.h"
#include "layout/rows8/rows8.h"

namespace nibble {
namespace {

struct Machine {
  explicit Machine(int threads) : pool(threads) {}
  ThreadPool pool;
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena, .compute = DType::f32};
};

struct Case {
  std::string name;
  QTensor w;
  CpuRows rows;
  double value_error = 0;  ///< relative rounding of a value that the product leaves out
  bool brief = false;      ///< few numbers of tokens suffice: what remains is as in other cases
};

double epsilon(DType dtype) { return dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : 0x1p-24; }

/// `view` again, one byte further in memory, as a file mapping may hold it.
View misaligned(const View& view, std::vector<Tensor>& keep) {
  Tensor copy({static_cast<std::int64_t>(view.size_bytes()) + 1}, DType::u8);
  std::copy_n(view.data(), view.size_bytes(), copy.data() + 1);
  keep.push_back(copy);
  return {copy.data() + 1, view.shape(), view.dtype()};
}

Case dense_case(DType dtype, std::int64_t rows, std::int64_t cols, std::vector<Tensor>& keep) {
  Rng rng(1);
  Tensor weight({rows, cols}, dtype);
  for (std::int64_t i = 0; i < rows * cols; ++i)
    store_from_f32(dtype, weight.data(), i, static_cast<float>(rng.normal()));
  return {cat("dense ", name_of(dtype)), dense::make(misaligned(weight, keep), nullptr), dense::cpu_rows()};
}

Case rows8_case(DType codes, DType dtype, std::int64_t rows, std::int64_t cols, std::vector<Tensor>& keep) {
  Rng rng(2);
  Tensor q({rows, cols}, codes), scale({rows}, dtype);
  for (std::int64_t i = 0; i < rows * cols; ++i)
    store_from_f32(codes, q.data(), i, static_cast<float>(rng.normal() * 40));
  for (std::int64_t i = 0; i < rows; ++i)
    store_from_f32(dtype, scale.data(), i, static_cast<float>(0.001 + 0.01 * rng.uniform()));
  keep.push_back(scale);
  return {cat("rows8 ", name_of(codes), " ", name_of(dtype)), rows8::make(misaligned(q, keep), scale, dtype, nullptr),
          rows8::cpu_rows(), 2 * epsilon(dtype)};
}

Case affine_case(std::int32_t bits, std::int64_t group, affine::Offset kind, DType dtype, std::int64_t rows,
                 std::int64_t cols, Exec& exec) {
  Rng rng(3);
  affine::Plain p{.rows = rows,
                  .cols = cols,
                  .group = group,
                  .bits = bits,
                  .offset_kind = kind,
                  .dtype = dtype,
                  .codes = {},
                  .scale = {},
                  .offset = {},
                  .order = {}};
  const auto levels = static_cast<double>(1U << bits);
  for (std::int64_t i = 0; i < rows * cols; ++i)
    p.codes.push_back(static_cast<std::uint8_t>(rng.next() % (1U << bits)));
  for (std::int64_t i = 0; i < rows * affine::groups_of(cols, group); ++i) {
    const double scale = 0.01 + 0.01 * rng.uniform(), middle = rng.uniform() * levels;
    p.scale.push_back(round_to(dtype, static_cast<float>(scale)));
    p.offset.push_back(
        round_to(dtype, static_cast<float>(kind == affine::Offset::shift ? scale * middle : std::floor(middle))));
  }
  return {cat("affine ", bits, " bits, group ", group, kind == affine::Offset::shift ? " shift " : " zero ",
              name_of(dtype)),
          affine::pack(p, exec), affine::cpu_rows()};
}

/// As GPTQ and AWQ weights are: values in f32 of scales and offsets in f16.
Case f16_scales_case(std::int32_t bits, std::int64_t group, affine::Offset kind, std::int64_t rows, std::int64_t cols,
                     Exec& exec) {
  Rng rng(14);
  const Shape groups{rows, affine::groups_of(cols, group)};
  affine::Parts parts{.rows = rows,
                      .cols = cols,
                      .group = group,
                      .bits = bits,
                      .offset_kind = kind,
                      .dtype = DType::f32,
                      .scale = Tensor(groups, DType::f16),
                      .offset = Tensor(groups, DType::f16),
                      .order = {}};
  for (std::int64_t i = 0; i < parts.scale.count(); ++i) {
    const double zero = std::floor(rng.uniform() * static_cast<double>(1U << bits)) + 1;
    store_from_f32(DType::f16, parts.scale.data(), i, static_cast<float>(0.01 + 0.01 * rng.uniform()));
    store_from_f32(DType::f16, parts.offset.data(), i,
                   static_cast<float>(kind == affine::Offset::shift ? 0.01 * zero : zero));
  }
  const auto fill = [&](const affine::CodeBlock& block) {
    Rng codes(static_cast<std::uint64_t>(block.row0 * 1000003 + block.col0));
    for (std::int64_t i = 0; i < block.rows * affine::kBlockCols; ++i)
      block.codes[i] = static_cast<std::uint8_t>(codes.next() >> (64 - bits));
  };
  return {
      cat("affine ", bits, " bits, group ", group, kind == affine::Offset::shift ? " shift" : " zero", ", f16 scales"),
      affine::pack_blocks(std::move(parts), fill, exec), affine::cpu_rows(), 0, true};
}

Tensor random_bytes(std::int64_t count, std::uint64_t seed) {
  Rng rng(seed);
  Tensor bytes({count}, DType::u8);
  for (std::int64_t i = 0; i < count; ++i) bytes.data()[i] = static_cast<std::byte>(rng.next());
  return bytes;
}

Tensor random_floats(Shape shape, DType dtype, std::uint64_t seed) {
  Rng rng(seed);
  Tensor values(std::move(shape), dtype);
  for (std::int64_t i = 0; i < values.count(); ++i) {
    store_from_f32(dtype, values.data(), i, static_cast<float>(rng.normal()));
  }
  return values;
}

Case lut4_case(bool nested, std::int64_t block, DType dtype, std::int64_t rows, std::int64_t cols,
               std::vector<Tensor>& keep) {
  const std::int64_t blocks = (rows * cols + block - 1) / block;
  lut4::Source source;
  source.rows = rows;
  source.cols = cols;
  source.block = block;
  source.dtype = dtype;
  source.codes = misaligned(random_bytes((rows * cols + 1) / 2, 4), keep);
  source.table = nested ? &lut4::kFp4 : &lut4::kNf4;
  source.scale =
      nested ? misaligned(random_bytes(blocks, 5), keep) : misaligned(random_floats({blocks}, DType::f32, 5), keep);
  if (nested) {
    source.nested = lut4::Nested{.offset = 0.25F, .block = 32, .dtype = dtype};
    source.nested_scale = misaligned(random_floats({(blocks + 31) / 32}, DType::f32, 6), keep);
    source.nested_table = misaligned(random_floats({256}, DType::f32, 7), keep);
  }
  return {cat("lut4 ", nested ? "nested " : "", "block ", block, " ", name_of(dtype)), lut4::make(source),
          lut4::cpu_rows()};
}

struct Books {
  std::int64_t count, bits, out_group, in_group;
};

Case codebook_case(const Books& b, DType dtype, std::int64_t rows, std::int64_t cols, std::vector<Tensor>& keep,
                   Exec& exec) {
  const Shape shape{rows / b.out_group, cols / b.in_group, b.count};
  const DType type = b.bits <= 8 ? DType::i8 : b.bits <= 16 ? DType::i16 : DType::i32;
  Tensor codes(shape, type);
  Rng rng(8);
  const std::int64_t entries = std::int64_t{1} << b.bits;
  for (std::int64_t i = 0; i < codes.count(); ++i) {
    store_from_f32(
        type, codes.data(), i,
        static_cast<float>(static_cast<std::int64_t>(rng.next() % static_cast<std::uint64_t>(entries)) - entries / 2));
  }
  const View books = misaligned(random_floats({b.count, entries, b.out_group, b.in_group}, dtype, 9), keep);
  const View scales = misaligned(random_floats({shape[0], 1, 1, 1}, dtype, 10), keep);
  return {cat("codebook ", b.count, "x", b.bits, ", groups ", b.out_group, "x", b.in_group, " ", name_of(dtype)),
          codebook::make(misaligned(codes, keep), books, scales, nullptr, exec), codebook::cpu_rows()};
}

void add_table_cases(std::int64_t rows, std::int64_t cols, DType dtype, std::vector<Tensor>& keep, Exec& exec,
                     std::vector<Case>& list) {
  for (const std::int64_t block : {32, 64, 4096}) {
    list.push_back(lut4_case(false, block, dtype, rows, cols, keep));
    list.push_back(lut4_case(true, block, dtype, rows, cols, keep));
  }
  for (const Books& b : {Books{1, 8, 1, 8}, Books{2, 8, 1, 8}, Books{4, 8, 1, 16}, Books{1, 12, 1, 8},
                         Books{3, 6, 2, 4}, Books{2, 5, 1, 11}, Books{1, 4, 3, 1}, Books{1, 16, 1, 8},
                         Books{1, 17, 1, 1}, Books{2, 7, 1, 1024}, Books{1, 2, 5, 44}}) {
    if (rows % b.out_group == 0 && cols % b.in_group == 0)
      list.push_back(codebook_case(b, dtype, rows, cols, keep, exec));
  }
}

void add_f16_scales(std::int64_t rows, std::int64_t cols, Exec& exec, std::vector<Case>& list) {
  for (const std::int32_t bits : {2, 3, 4, 8}) {
    for (const std::int64_t group : {32, 64, 96, 128, 40, 1 << 20}) {
      list.push_back(f16_scales_case(bits, group, affine::Offset::zero_point, rows, cols, exec));
    }
    list.push_back(f16_scales_case(bits, 128, affine::Offset::shift, rows, cols, exec));
  }
}

std::vector<Case> cases(std::int64_t rows, std::int64_t cols, std::vector<Tensor>& keep, Exec& exec) {
  std::vector<Case> list;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    list.push_back(dense_case(dtype, rows, cols, keep));
    for (const DType codes : {DType::i8, DType::f8_e4m3fn, DType::f8_e5m2, DType::f8_e4m3fnuz}) {
      list.push_back(rows8_case(codes, dtype, rows, cols, keep));
    }
    for (const std::int32_t bits : {4, 2}) {
      for (const std::int64_t group : {32, 96, 128, 40, 1 << 20}) {
        list.push_back(affine_case(bits, group, affine::Offset::shift, dtype, rows, cols, exec));
      }
    }
    list.push_back(affine_case(4, 128, affine::Offset::zero_point, dtype, rows, cols, exec));
    add_table_cases(rows, cols, dtype, keep, exec, list);
    for (const std::int64_t group : {64, 256})
      list.push_back(affine_case(8, group, affine::Offset::zero_point, dtype, rows, cols, exec));
    for (const std::int32_t bits : {1, 3, 5, 6, 7, 8}) {
      list.push_back(affine_case(bits, 64, bits % 2 == 0 ? affine::Offset::shift : affine::Offset::zero_point, dtype,
                                 rows, cols, exec));
    }
  }
  add_f16_scales(rows, cols, exec, list);
  return list;
}

/// Runs `body` once per instruction set: Highway's targets of this machine, then the hand-written sets on top of the
/// best.
template <class F>
void for_each_isa(F&& body) {
  const auto all = hwy::SupportedTargets() & HWY_TARGETS;
  for (auto left = all; left != 0; left &= left - 1) {
    const auto target = left & (~left + 1);
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    SCOPED_TRACE(hwy::TargetName(target));
    body(CpuIsa::simd);
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(all | hwy::SupportedTargets());
  SCOPED_TRACE("amx");
  if (has(CpuIsa::amx)) body(CpuIsa::amx);
}

class Shapes : public testing::TestWithParam<std::pair<std::int64_t, std::int64_t>> {};

TEST_P(Shapes, DecodeIsBitEqualToReference) {
  Machine m(2);
  std::vector<Tensor> keep;
  const std::int64_t rows = GetParam().first, cols = GetParam().second;
  for (const Case& c : cases(rows, cols, keep, m.exec)) {
    std::vector<float> expected(static_cast<std::size_t>(rows * cols)), got(expected);
    m.exec.target = Target::ref;
    decode(c.w, 0, rows, expected.data(), m.exec);
    for_each_isa([&](CpuIsa) {
      cpu_decode(c.rows, c.w, 0, rows, got.data(), m.exec);
      for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_TRUE(got[i] == expected[i] || (std::isnan(got[i]) && std::isnan(expected[i])))
            << c.name << " element " << i << ": " << got[i] << " for " << expected[i];
      }
    });
  }
}

/// One product on every instruction set and with 1, 2 and 3 threads.
void check_products(const Case& c, std::int64_t m, DType compute, std::array<Machine, 3>& machines) {
  const std::int64_t rows = c.w.rows, cols = c.w.cols, ldx = cols + 3, ldy = rows + 2;
  Rng rng(static_cast<std::uint64_t>(m));
  std::vector<float> x(static_cast<std::size_t>(m * ldx)), bias(static_cast<std::size_t>(rows)),
      expected(static_cast<std::size_t>(m * ldy));
  for (float& value : x) value = static_cast<float>(rng.normal());
  for (float& value : bias) value = static_cast<float>(rng.normal());
  std::vector<float> got(expected), first, weight(static_cast<std::size_t>(rows * cols));
  MatArgs args{.x = x.data(), .m = m, .ldx = ldx, .y = expected.data(), .ldy = ldy, .bias = bias.data()};
  Exec ref = machines[0].exec;
  ref.target = Target::ref;
  ref.compute = compute;
  matmul(c.w, args, ref);
  decode(c.w, 0, rows, weight.data(), ref);
  args.y = got.data();
  const double error =
      static_cast<double>(cols + 2) * 0x1p-24 + 2 * c.value_error + (c.value_error > 0 ? 2 * epsilon(compute) : 0);
  for_each_isa([&](CpuIsa isa) {
    for (Machine& machine : machines) {
      Exec exec = machine.exec;
      exec.compute = compute;
      std::fill(got.begin(), got.end(), -7.0F);
      cpu_matmul(c.rows, isa, c.w, args, exec);
      if (&machine == &machines[0]) first = got;
      ASSERT_EQ(got, first) << c.name << ", " << machine.pool.size() << " threads, m " << m;
    }
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t n = 0; n < rows; ++n) {
        double size = std::abs(bias[static_cast<std::size_t>(n)]);
        for (std::int64_t k = 0; k < cols; ++k)
          size += std::abs(static_cast<double>(x[static_cast<std::size_t>(i * ldx + k)]) *
                           weight[static_cast<std::size_t>(n * cols + k)]);
        const auto at = static_cast<std::size_t>(i * ldy + n);
        ASSERT_NEAR(got[at], expected[at], error * size * (1 + 2 * epsilon(compute)) + 1e-30)
            << c.name << ", compute " << name_of(compute) << ", m " << m << ", row " << n;
      }
      ASSERT_EQ(got[static_cast<std::size_t>(i * ldy + rows)], -7.0F) << "written beyond the rows";
    }
  });
}

TEST_P(Shapes, ProductsAreWithinTheBoundOfTheirSums) {
  std::array<Machine, 3> machines{Machine(1), Machine(2), Machine(3)};
  std::vector<Tensor> keep;
  const std::int64_t rows = GetParam().first, cols = GetParam().second;
  for (const Case& c : cases(rows, cols, keep, machines[0].exec)) {
    for (const std::int64_t m : {1, 2, 3, 7, 16, 17, 33, 80}) {
      for (const DType compute : {DType::f32, DType::f16, DType::bf16}) {
        if (m != 1 && m != 17 && m != 33 && compute != c.w.dtype)
          continue;  // the mixed cases need not be repeated for every m
        check_products(c, m, compute, machines);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Shapes,
                         testing::Values(std::pair{1, 1}, std::pair{9, 31}, std::pair{17, 172}, std::pair{33, 352},
                                         std::pair{40, 1024}, std::pair{5, 1100}, std::pair{16, 1088}));

/// The sums are of integers: nothing may differ, on any instruction set and for any number of threads.
TEST_P(Shapes, LlmInt8IsBitEqualToReference) {
  const std::int64_t rows = GetParam().first, cols = GetParam().second;
  std::vector<Tensor> keep;
  const Tensor q = random_bytes(rows * cols, 11), bias = random_floats({rows}, DType::f32, 12);
  Tensor absmax({rows}, DType::f32);
  for (float& value : absmax.as<float>()) value = 0.5F;
  for (const float threshold : {0.0F, 2.5F}) {
    const QTensor w = rows8::make_llm_int8(misaligned(q.view().cast(DType::i8).reshaped({rows, cols}), keep), absmax,
                                           threshold, nullptr);
    for (const std::int64_t m : {1, 5, 33}) {
      const Tensor x = random_floats({m, cols + 1}, DType::f32, 13);
      std::vector<float> expected(static_cast<std::size_t>(m * rows)), got(expected);
      MatArgs args{.x = x.view().as<float>().data(),
                   .m = m,
                   .ldx = cols + 1,
                   .y = expected.data(),
                   .ldy = rows,
                   .bias = bias.view().as<float>().data()};
      for (const DType compute : {DType::f32, DType::f16, DType::bf16}) {
        Machine one(1), three(3);
        one.exec.target = Target::ref;
        one.exec.compute = three.exec.compute = compute;
        args.y = expected.data();
        matmul(w, args, one.exec);
        args.y = got.data();
        for_each_isa([&](CpuIsa) {
          matmul(w, args, three.exec);
          ASSERT_EQ(got, expected) << "threshold " << threshold << ", m " << m << ", " << name_of(compute);
        });
      }
    }
  }
}

TEST(Rows8, EveryF8CodeDecodesExactly) {
  Machine m(1);
  for (const DType codes : {DType::f8_e4m3fn, DType::f8_e5m2, DType::f8_e4m3fnuz, DType::i8}) {
    Tensor q({1, 256}, codes), scale({1}, DType::f32);
    for (int i = 0; i < 256; ++i) q.data()[i] = static_cast<std::byte>(i);
    scale.as<float>()[0] = 1;
    const QTensor w = rows8::make(q, scale, DType::f32, nullptr);
    for_each_isa([&](CpuIsa) {
      std::vector<float> got(256);
      cpu_decode(rows8::cpu_rows(), w, 0, 1, got.data(), m.exec);
      for (int i = 0; i < 256; ++i) {
        const float expected = load_as_f32(codes, q.data(), i);
        ASSERT_TRUE(got[static_cast<std::size_t>(i)] == expected ||
                    (std::isnan(expected) && std::isnan(got[static_cast<std::size_t>(i)])))
            << name_of(codes) << " code " << i;
      }
    });
  }
}

}  // namespace
}  // namespace nibble
