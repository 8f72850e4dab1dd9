#include "quant/quanto/weights.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <vector>

#include "base/error.h"
#include "quant/common/affine_codes.h"
#include "quant/common/half_quadratic.h"
#include "quant/common/rounding.h"
#include "quant/common/symmetric.h"
#include "quant/common/values.h"
#include "quant/quanto/packed.h"

namespace nibble::quanto {
namespace {

constexpr std::int64_t kNone = std::numeric_limits<std::int64_t>::max();

/// The lowest index of a row with a value that is not finite; told by any worker.
class BadRow {
 public:
  void report(std::int64_t row) {
    std::int64_t seen = row_.load(std::memory_order_relaxed);
    while (row < seen && !row_.compare_exchange_weak(seen, row, std::memory_order_relaxed)) {
    }
  }
  void check(const std::string& name) const {
    const std::int64_t row = row_.load(std::memory_order_relaxed);
    if (row != kNone) throw bad_input(name, ": row ", row, " holds a NaN or an infinity");
  }

 private:
  std::atomic<std::int64_t> row_{kNone};
};

const std::byte* element(const View& view, std::int64_t index) {
  return view.data() + index * static_cast<std::int64_t>(size_of(view.dtype()));
}

/// The stored tensors of `weight`, zeroed.
StoredWeight make_stored(const WeightSpec& spec, const View& weight) {
  const std::vector<TensorPlan> parts = stored_parts("", spec, weight.shape(), weight.dtype());
  StoredWeight stored{Tensor(parts[0].shape, parts[0].dtype), Tensor(parts[1].shape, parts[1].dtype), {}};
  if (parts.size() > 2) stored.shift = Tensor(parts[2].shape, parts[2].dtype);
  return stored;
}

StoredWeight quantize_bytes(const WeightSpec& spec, const View& weight, const std::string& name, ThreadPool& pool) {
  StoredWeight stored = make_stored(spec, weight);
  const Extent extent = extent_of(spec, weight.shape());
  const DType dtype = weight.dtype(), code = code_dtype(spec.qtype);
  BadRow bad;
  std::vector<std::vector<float>> buffers(static_cast<std::size_t>(pool.size()),
                                          std::vector<float>(static_cast<std::size_t>(extent.cols)));
  pool.run(extent.rows, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    float* x = buffers[static_cast<std::size_t>(worker)].data();
    for (std::int64_t row = begin; row < end; ++row) {
      if (!load_finite(dtype, element(weight, row * extent.cols), x, extent.cols)) bad.report(row);
      const float scale = absmax_scale(dtype, code, x, extent.cols);
      store_from_f32(dtype, stored.scale.data(), row, scale);
      encode_symmetric(dtype, code, x, extent.cols, scale, stored.data.data() + row * extent.cols);
    }
  });
  bad.check(name);
  return stored;
}

/// Quantizes to packed codes, one unit (a row of the packed tensor before packing: a group, or a whole row of the
/// weight when it has no groups) at a time.
class PackedQuantizer {
 public:
  PackedQuantizer(const WeightSpec& spec, const View& weight, ThreadPool& pool)
      : spec_(spec),
        weight_(weight),
        pool_(pool),
        extent_(extent_of(spec, weight.shape())),
        bits_(bits_of(spec.qtype)),
        width_(extent_.grouped ? extent_.group : extent_.cols),
        units_(extent_.grouped ? extent_.groups() : extent_.rows),
        tinygemm_(!spec.exact_shift && !spec.zero_point &&
                  is_tinygemm(spec.qtype, weight.dtype(), extent_, weight.rank())),
        stored_(make_stored(spec, weight)) {}

  StoredWeight run(const std::string& name) {
    if (extent_.cols == 0) return std::move(stored_);
    if (spec_.optimizer == Optimizer::hqq) refine();
    const std::int64_t height = packed_rows(units_, bits_);
    std::vector<Buffer> buffers(static_cast<std::size_t>(pool_.size()), Buffer(width_));
    auto* packed = reinterpret_cast<std::uint8_t*>(stored_.data.data());
    pool_.run(height, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
      Buffer& buffer = buffers[static_cast<std::size_t>(worker)];
      for (std::int64_t row = begin; row < end; ++row) {
        std::int32_t shift = 0;
        for (std::int64_t unit = row; unit < units_; unit += height, shift += bits_) {
          encode_unit(unit, buffer);
          or_codes(buffer.codes.data(), width_, shift, packed + row * width_);
        }
      }
    });
    bad_.check(name);
    return std::move(stored_);
  }

 private:
  struct Buffer {
    explicit Buffer(std::int64_t width)
        : values(static_cast<std::size_t>(width)), codes(static_cast<std::size_t>(width)) {}
    std::vector<float> values;
    std::vector<std::uint8_t> codes;
  };

  /// Half-quadratic shifts of all groups. A single ungrouped row is exact already.
  void refine() {
    if (extent_.group != width_) return;
    shifts_ = half_quadratic_shifts({.values = weight_, .groups = units_, .group = width_, .bits = bits_}, pool_);
  }

  AffineGroup group_of(std::int64_t unit, const float* x) const {
    AffineGroup group = minmax_group(weight_.dtype(), bits_, x, extent_.group);
    if (!shifts_.empty()) group.shift = shifts_[static_cast<std::size_t>(unit)];
    return group;
  }

  void encode_unit(std::int64_t unit, Buffer& buffer) {
    const DType dtype = weight_.dtype();
    float* x = buffer.values.data();
    if (!load_finite(dtype, element(weight_, unit * width_), x, width_)) bad_.report(unit * width_ / extent_.cols);
    for (std::int64_t at = 0; at < width_; at += extent_.group) {
      const std::int64_t index = (unit * width_ + at) / extent_.group;
      const AffineGroup group = group_of(unit, x + at);
      std::uint8_t* codes = buffer.codes.data() + at;
      float shift = group.shift;
      if (spec_.zero_point) {
        shift = zero_point_of(dtype, bits_, group);
        encode_zero_point(dtype, bits_, group.scale, shift, x + at, extent_.group, codes);
      } else {
        encode_affine(dtype, bits_, group, x + at, extent_.group, codes);
        if (tinygemm_) shift = tinygemm_shift(group.scale, shift);
      }
      store_from_f32(dtype, stored_.scale.data(), index, group.scale);
      store_from_f32(stored_.shift.dtype(), stored_.shift.data(), index, shift);
    }
  }

  const WeightSpec& spec_;
  const View& weight_;
  ThreadPool& pool_;
  const Extent extent_;
  const std::int32_t bits_;
  const std::int64_t width_, units_;
  const bool tinygemm_;
  StoredWeight stored_;
  std::vector<float> shifts_;
  BadRow bad_;
};

}  // namespace

StoredWeight quantize_weight(const WeightSpec& spec, const View& weight, const std::string& name, ThreadPool& pool) {
  check_spec(spec);
  if (is_packed(spec.qtype)) return PackedQuantizer(spec, weight, pool).run(name);
  return quantize_bytes(spec, weight, name, pool);
}

StoredWeight quantize_last_axis(QType qtype, const View& weight, const std::string& name) {
  check(!is_packed(qtype) && weight.rank() > 0, "quantize_last_axis: qtype or shape");
  const std::int64_t cols = weight.dim(weight.rank() - 1);
  const std::int64_t rows = cols == 0 ? 0 : weight.count() / cols;
  const DType dtype = weight.dtype(), code = code_dtype(qtype);
  Shape scale_shape(weight.rank(), 1);
  scale_shape.back() = cols;
  StoredWeight stored{Tensor(weight.shape(), code), Tensor(scale_shape, dtype), {}};
  std::vector<float> x(static_cast<std::size_t>(cols)), scales(x.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    if (!load_finite(dtype, element(weight, row * cols), x.data(), cols)) {
      throw bad_input(name, ": row ", row, " holds a NaN or an infinity");
    }
    for (std::size_t c = 0; c < x.size(); ++c) scales[c] = std::max(scales[c], x[c] < 0 ? -x[c] : x[c]);
  }
  for (std::size_t c = 0; c < x.size(); ++c) {
    scales[c] = round_to(dtype, scales[c] / largest_code(code));
    store_from_f32(dtype, stored.scale.data(), static_cast<std::int64_t>(c), scales[c]);
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    load_finite(dtype, element(weight, row * cols), x.data(), cols);
    encode_symmetric(dtype, code, x.data(), cols, scales.data(), stored.data.data() + row * cols);
  }
  return stored;
}

float tinygemm_shift(float scale, float shift) {
  using rounding::Bf16;
  const float half = Bf16::round(8 * scale);
  return Bf16::round(half - Bf16::round(-shift + half));
}

void dequantize_row(const WeightSpec& spec, const Extent& extent, const View& scale, const View& shift, RowCodes row,
                    float* out) {
  const DType dtype = scale.dtype();
  if (!is_packed(spec.qtype)) {
    decode_symmetric(dtype, code_dtype(spec.qtype), row.codes, extent.cols, scale.at(row.first_group), out);
    return;
  }
  const auto* codes = reinterpret_cast<const std::uint8_t*>(row.codes);
  std::int64_t group = row.first_group;
  for (std::int64_t at = 0; at < extent.cols; at += extent.group, ++group) {
    if (shift.dtype() == DType::u8) {
      decode_zero_point(dtype, scale.at(group), shift.at(group), codes + at, extent.group, out + at);
    } else {
      decode_affine(dtype, {scale.at(group), shift.at(group)}, codes + at, extent.group, out + at);
    }
  }
}

}  // namespace nibble::quanto
