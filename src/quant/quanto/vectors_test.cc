// Single tensors quantized by optimum-quanto 0.2.7: three dtypes, every qtype and optimizer, odd shapes, rows of zeros,
// subnormals, outliers and constants.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "quant/common/symmetric.h"
#include "quant/quanto/packed.h"
#include "quant/quanto/reader.h"
#include "support/test_support.h"

namespace nibble::quanto {
namespace {

struct Case {
  std::string name;
  const Json* facts;
};

class QuantoVectors : public testing::Test {
 protected:
  QuantoVectors()
      : index_(Json::read(test::data("quanto/index.json"))),
        tensors_(Checkpoint::open(test::data("quanto/vectors/quanto.safetensors").string())) {}

  std::vector<Case> cases(const std::string& kind) const {
    std::vector<Case> out;
    for (const auto& [key, facts] : index_.find("vectors")->object("vectors")) {
      const Json* found = facts.find("kind");
      if (found != nullptr && found->string(key) == kind) out.push_back({key.substr(7), &facts});
    }
    return out;
  }
  const View& at(const Case& c, const std::string& part) const { return tensors_->at(c.name + "." + part); }
  static std::string text(const Case& c, const char* key) { return c.facts->find(key)->string(key); }
  static QType qtype(const Case& c) { return qtype_from_name(text(c, "qtype")).value(); }

  Json index_;
  std::shared_ptr<const Checkpoint> tensors_;
  ThreadPool pool_{2};
};

/// Elements whose bits differ. Where the library stores a NaN code for a zero row, nibble stores zero: such elements of
/// `expected` are skipped when `zero_row` says so.
std::int64_t differing(const View& got, const View& expected, DType codes = DType::u8) {
  EXPECT_EQ(got.size_bytes(), expected.size_bytes());
  std::int64_t count = 0;
  const std::size_t bytes = size_of(got.dtype());
  for (std::size_t i = 0; i < got.size_bytes(); i += bytes) {
    const bool same = std::equal(got.data() + i, got.data() + i + bytes, expected.data() + i);
    const bool library_nan =
        bytes == 1 && is_float(codes) && std::isnan(load_as_f32(codes, expected.data(), static_cast<std::int64_t>(i)));
    if (library_nan) {
      EXPECT_EQ(static_cast<int>(got.data()[i]), 0);
    }
    count += same || library_nan ? 0 : 1;
  }
  return count;
}

TEST_F(QuantoVectors, SymmetricCodesScalesAndValues) {
  const std::vector<Case> all = cases("quanto_sym");
  ASSERT_EQ(all.size(), 24U);
  for (const Case& c : all) {
    SCOPED_TRACE(c.name);
    const View& input = at(c, "input");
    const DType codes = code_dtype(qtype(c));
    const bool first = c.facts->find("axis")->integer("axis") == 0;
    const StoredWeight stored = first ? quantize_weight({.qtype = qtype(c)}, input, c.name, pool_)
                                      : quantize_last_axis(qtype(c), input, c.name);
    EXPECT_EQ(differing(stored.scale.view(), at(c, "_scale")), 0);
    EXPECT_EQ(differing(stored.data.view(), at(c, "_data"), codes), 0);
    if (!first) continue;
    std::vector<float> values(static_cast<std::size_t>(input.dim(1)));
    for (std::int64_t row = 0; row < input.dim(0); ++row) {
      decode_symmetric(input.dtype(), codes, at(c, "_data").data() + row * input.dim(1), input.dim(1),
                       at(c, "_scale").at(row), values.data());
      for (std::int64_t i = 0; i < input.dim(1); ++i) {
        const float expected = at(c, "dequant").at(row * input.dim(1) + i), got = values[static_cast<std::size_t>(i)];
        ASSERT_TRUE(std::bit_cast<std::uint32_t>(expected) == std::bit_cast<std::uint32_t>(got) ||
                    (std::isnan(expected) && std::isnan(got)))
            << row << "," << i << ": " << got << ", expected " << expected;
      }
    }
  }
}

TEST_F(QuantoVectors, ActivationCodes) {
  const std::vector<Case> all = cases("quanto_act");
  ASSERT_EQ(all.size(), 9U);
  for (const Case& c : all) {
    SCOPED_TRACE(c.name);
    const std::vector<float> x = at(c, "input").to_f32();
    Tensor codes(at(c, "_data").shape(), DType::u8);
    encode_symmetric(at(c, "input").dtype(), code_dtype(qtype(c)), x.data(), static_cast<std::int64_t>(x.size()),
                     at(c, "_scale").at(0), codes.data());
    EXPECT_EQ(differing(codes.view(), at(c, "_data")), 0);
  }
}

TEST_F(QuantoVectors, AffineBytesParametersAndValues) {
  const std::vector<Case> all = cases("quanto_affine");
  ASSERT_EQ(all.size(), 49U);
  for (const Case& c : all) {
    SCOPED_TRACE(c.name);
    const View& input = at(c, "input");
    const std::string optimizer = text(c, "optimizer");
    WeightSpec spec{.qtype = qtype(c), .exact_shift = true};
    spec.zero_point = optimizer == "zp";
    if (optimizer == "hqq") spec.optimizer = Optimizer::hqq;
    const Json* group = c.facts->get("group_size");
    const Extent extent = extent_of(spec, input.shape());
    if (extent.grouped ? group == nullptr || group->integer("group_size") != extent.group : group != nullptr) {
      spec.group_size = group->integer("group_size");  // not the one the library would choose for a module
    }
    const StoredWeight stored = quantize_weight(spec, input, c.name, pool_);
    EXPECT_EQ(differing(stored.scale.view(), at(c, "_scale")), 0);
    EXPECT_EQ(differing(stored.shift.view(), at(c, "_shift")), 0);
    EXPECT_EQ(differing(stored.data.view(), at(c, "_data._data")), 0);
    if (tensors_->find(c.name + ".tinygemm_saved._shift") == nullptr) continue;
    spec.exact_shift = false;
    EXPECT_EQ(differing(quantize_weight(spec, input, c.name, pool_).shift.view(), at(c, "tinygemm_saved._shift")), 0);
  }
}

TEST_F(QuantoVectors, AffineValues) {
  for (const Case& c : cases("quanto_affine")) {
    SCOPED_TRACE(c.name);
    const View &input = at(c, "input"), &scale = at(c, "_scale"), &shift = at(c, "_shift");
    WeightSpec spec{.qtype = qtype(c), .zero_point = shift.dtype() == DType::u8};
    if (const Json* group = c.facts->get("group_size")) spec.group_size = group->integer("group_size");
    const Extent extent = extent_of(spec, input.shape());
    const std::int64_t width = extent.grouped ? extent.group : extent.cols, units = input.count() / width;
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(input.count()));
    for (std::int64_t unit = 0; unit < units; ++unit) {
      unpack_row(reinterpret_cast<const std::uint8_t*>(at(c, "_data._data").data()), units, width, bits_of(spec.qtype),
                 unit, codes.data() + unit * width);
    }
    std::vector<float> values(static_cast<std::size_t>(extent.cols));
    for (std::int64_t row = 0; row < extent.rows; ++row) {
      dequantize_row(
          spec, extent, scale, shift,
          {reinterpret_cast<const std::byte*>(codes.data()) + row * extent.cols, row * (extent.cols / extent.group)},
          values.data());
      for (std::int64_t i = 0; i < extent.cols; ++i) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(values[static_cast<std::size_t>(i)]),
                  std::bit_cast<std::uint32_t>(at(c, "dequant").at(row * extent.cols + i)));
      }
    }
  }
}

TEST_F(QuantoVectors, GroupSizes) {
  const Json::Object& table = index_.find("vectors")->find("quanto.group_size_table")->object("table");
  ASSERT_GT(table.size(), 20U);
  for (const auto& [inputs, group] : table) {
    EXPECT_EQ(group_size_for(std::stoll(inputs)), group.is_null() ? 0 : group.integer("group")) << inputs;
  }
}

}  // namespace
}  // namespace nibble::quanto
