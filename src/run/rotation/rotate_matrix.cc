#include "run/rotation/rotate_matrix.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/error.h"

namespace nibble {
namespace {

using Side = RotatedMatrix::Side;

/// Columns that are turned together where the outputs' basis changes: a cache line of f64s or more, and a panel of a
/// few thousand rows still fits a core's cache.
constexpr std::int64_t kPanel = 16;

/// A worker's memory.
struct Work {
  std::vector<double> block, scratch;
  std::vector<float> row;
};

/// A rectangle of the matrix in f64: rows [row, row + height), columns [col, col + width).
struct Block {
  std::int64_t row, height, col, width;
};

class Rotator {
 public:
  Rotator(const RotatedMatrix& matrix, const View& from, DType to_type, std::byte* to, const Bases& bases)
      : m_(matrix), from_(from), to_type_(to_type), to_(to), bases_(bases) {
    check(m_.norm == nullptr || m_.inputs != Side::heads, "rotate_matrix: a norm in front of heads");
    // Blocks hold whole vectors of every basis that changes: all rows or all columns, and whole heads.
    const bool columns = m_.outputs == Side::residual;
    check(!columns || m_.inputs != Side::residual, "rotate_matrix: both sides in the residual stream");
    height_ = columns ? m_.rows : m_.outputs == Side::heads ? m_.head_dim : 1;
    width_ = !columns ? m_.cols : m_.inputs == Side::heads ? m_.head_dim : std::min(kPanel, m_.cols);
    blocks_ = columns ? (m_.cols + width_ - 1) / width_ : m_.rows / height_;
  }

  Rotated run(ThreadPool& pool) {
    std::vector<Work> works(static_cast<std::size_t>(pool.size()));
    const std::int64_t scratch =
        std::max(bases_.residual.scratch_size(width_), bases_.heads.front().scratch_size(width_));
    for (Work& work : works) {
      work.block.resize(static_cast<std::size_t>(height_ * width_));
      work.row.resize(static_cast<std::size_t>(width_));
      work.scratch.resize(static_cast<std::size_t>(scratch));
    }
    pool.run(blocks_, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
      Work& work = works[static_cast<std::size_t>(worker)];
      for (std::int64_t i = begin; i < end; ++i) rotate(block(i), work);
    });
    if (not_finite_) return Rotated::not_finite;
    return too_large_ ? Rotated::too_large : Rotated::fine;
  }

 private:
  Block block(std::int64_t i) const {
    if (m_.outputs != Side::residual) return {i * height_, height_, 0, width_};
    return {0, height_, i * width_, std::min(width_, m_.cols - i * width_)};
  }

  const RandomHadamard& head_base(std::int64_t channel) const {
    return bases_.heads[static_cast<std::size_t>(m_.first_head + channel / m_.head_dim / m_.heads_per_base)];
  }

  void rotate(const Block& b, Work& work) {
    double* values = work.block.data();
    for (std::int64_t r = 0; r < b.height; ++r) {
      double* row = values + r * b.width;
      load(b, r, row, work);
      if (m_.inputs == Side::residual) bases_.residual.apply(row, 1, work.scratch.data());
      if (m_.inputs != Side::heads) continue;
      for (std::int64_t c = 0; c < b.width; c += m_.head_dim) {
        head_base(b.col + c).apply(row + c, 1, work.scratch.data());
      }
    }
    if (m_.outputs == Side::residual) bases_.residual.apply(values, b.width, work.scratch.data());
    if (m_.outputs == Side::heads) head_base(b.row).apply(values, b.width, work.scratch.data());
    for (std::int64_t r = 0; r < b.height; ++r) store(b, r, values + r * b.width, work);
  }

  std::int64_t element(const Block& b, std::int64_t r) const { return m_.offset + (b.row + r) * m_.cols + b.col; }

  void load(const Block& b, std::int64_t r, double* values, Work& work) {
    const std::byte* from = from_.data() + element(b, r) * static_cast<std::int64_t>(size_of(from_.dtype()));
    convert_to_f32(from_.dtype(), from, work.row.data(), b.width);
    bool finite = true;
    for (std::int64_t i = 0; i < b.width; ++i) {
      const float value = work.row[static_cast<std::size_t>(i)];
      finite = finite && std::isfinite(value);
      values[i] = value;
    }
    if (!finite) not_finite_ = true;
    if (m_.norm == nullptr) return;
    const float* norm = m_.norm->data() + b.col;
    for (std::int64_t i = 0; i < b.width; ++i) values[i] *= norm[i];
  }

  void store(const Block& b, std::int64_t r, const double* values, Work& work) {
    std::byte* to = to_ + element(b, r) * static_cast<std::int64_t>(size_of(to_type_));
    for (std::int64_t i = 0; i < b.width; ++i) work.row[static_cast<std::size_t>(i)] = static_cast<float>(values[i]);
    convert_from_f32(to_type_, work.row.data(), to, b.width);
    convert_to_f32(to_type_, to, work.row.data(), b.width);
    for (std::int64_t i = 0; i < b.width; ++i) {
      if (!std::isfinite(work.row[static_cast<std::size_t>(i)])) too_large_ = true;
    }
  }

  const RotatedMatrix& m_;
  const View& from_;
  DType to_type_;
  std::byte* to_;
  const Bases& bases_;
  std::int64_t height_ = 0, width_ = 0, blocks_ = 0;
  std::atomic<bool> not_finite_ = false, too_large_ = false;
};

}  // namespace

Rotated rotate_matrix(const RotatedMatrix& matrix, const View& from, DType to_type, std::byte* to, const Bases& bases,
                      ThreadPool& pool) {
  return Rotator(matrix, from, to_type, to, bases).run(pool);
}

}  // namespace nibble
