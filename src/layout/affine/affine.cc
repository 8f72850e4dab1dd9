#include "layout/affine/affine.h"

#include <array>
#include <span>
#include <vector>

#include "layout/affine/codes.h"
#include "layout/affine/kernels.h"
#include "layout/affine/order.h"
#include "layout/ref-inl.h"

namespace nibble::affine {
namespace {

constexpr std::string_view kParts[] = {"codes", "scale", "offset", "kind", "order"};

/// Calls f(k, codes, count) for the blocks of a row.
template <class F>
void for_blocks(const QTensor& w, std::int64_t row, F&& f) {
  const auto* data = reinterpret_cast<const std::uint8_t*>(w.part[0].data()) + row * row_bytes(w.cols, w.bits);
  std::array<std::uint8_t, kBlock> codes;
  for (std::int64_t k = 0; k < w.cols; k += kBlock) {
    const std::int64_t count = std::min(kBlock, w.cols - k);
    data = unpack_block(data, padded_cols(count), w.bits, codes.data());
    f(k, codes.data(), count);
  }
}

void decode_row(const QTensor& w, std::int64_t row, float* out) {
  const std::int64_t groups = groups_of(w.cols, w.group);
  const Offset kind = offset_kind(w);
  for_blocks(w, row, [&](std::int64_t k, const std::uint8_t* codes, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t group = row * groups + (k + i) / w.group;
      out[k + i] = value_of(w.dtype, kind, w.part[1].at(group), w.part[2].at(group), codes[i]);
    }
  });
}

void ref_matmul(const QTensor& w, const MatArgs& args, Exec& exec) {
  in_stored_order(w, args, exec, [&](const MatArgs& ordered) { ref::matmul(w, ordered, exec, &decode_row); });
}
void ref_decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  ref::decode(w, row0, rows, out, exec, &decode_row);
  to_input_order(w, rows, out, exec);
}

constexpr Kernels kRef{&ref_matmul, &ref_decode};

void check_float(DType dtype, const char* what) {
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) {
    throw bad_input("affine weight: ", what, " of ", name_of(dtype), " (f32, f16 and bf16 are supported)");
  }
}

void check_order(std::span<const std::int32_t> order) {
  std::vector<bool> seen(order.size());
  for (const std::int32_t input : order) {
    if (input < 0 || static_cast<std::size_t>(input) >= order.size() || seen[static_cast<std::size_t>(input)]) {
      throw bad_input("affine weight: the order of inputs is no permutation");
    }
    seen[static_cast<std::size_t>(input)] = true;
  }
}

template <class P>
void check_form(const P& p) {
  if (p.bits < 1 || p.bits > 8) throw bad_input("affine weight: ", p.bits, " bits (1 to 8 are supported)");
  if (p.rows < 0 || p.cols < 0) throw bad_input("affine weight: shape ", to_string({p.rows, p.cols}));
  if (p.group < 1) throw bad_input("affine weight: group of ", p.group);
  check_float(p.dtype, "values");
  count_of({p.rows, p.cols});
}

void check_count(std::int64_t found, std::int64_t expected, const char* what) {
  if (found != expected) throw bad_input("affine weight: ", found, " ", what, ", expected ", expected);
}

void check_parts(const Parts& p) {
  check_form(p);
  check_float(p.scale.dtype(), "scales");
  check_float(p.offset.dtype(), "offsets");
  const std::int64_t groups = p.rows * groups_of(p.cols, p.group);
  check_count(p.scale.count(), groups, "scales");
  check_count(p.offset.count(), groups, "offsets");
  if (p.order.count() == 0) return;
  check_count(p.order.count(), p.cols, "inputs in the order");
  check_order(p.order.view().as<std::int32_t>());
}

void check_plain(const Plain& p) {
  check_form(p);
  const std::int64_t groups = p.rows * groups_of(p.cols, p.group);
  check_count(static_cast<std::int64_t>(p.codes.size()), p.rows * p.cols, "codes");
  check_count(static_cast<std::int64_t>(p.scale.size()), groups, "scales");
  check_count(static_cast<std::int64_t>(p.offset.size()), groups, "offsets");
  const int limit = 1 << p.bits;
  for (const std::uint8_t code : p.codes) {
    if (code >= limit) throw bad_input("affine weight: code ", int{code}, " does not fit ", p.bits, " bits");
  }
}

Tensor float_tensor(const std::vector<float>& values, Shape shape, DType dtype) {
  Tensor out(std::move(shape), dtype);
  convert_from_f32(dtype, values.data(), out.data(), out.count());
  return out;
}

/// Calls f(block) for every block of the matrix, rows split over the threads; block.codes is scratch of the thread.
template <class F>
void for_tiles(std::int64_t rows, std::int64_t cols, Exec& exec, F&& f) {
  exec.pool.run(rows, kBlockRows, [&](std::int64_t begin, std::int64_t end, int) {
    alignas(64) std::array<std::uint8_t, kBlockRows * kBlockCols> codes;
    for (std::int64_t r = begin; r < end; r += kBlockRows) {
      for (std::int64_t k = 0; k < cols; k += kBlockCols) {
        f(CodeBlock{r, std::min(kBlockRows, end - r), k, std::min(kBlockCols, cols - k), codes.data()});
      }
    }
  });
}

}  // namespace

constexpr Layout kLayout{"affine", kParts, {&kRef, &kCpu}};

Offset offset_kind(const QTensor& w) { return static_cast<Offset>(w.part[3].data()[0]); }

namespace {

/// A weight whose codes are still to be written, and where.
struct Unwritten {
  QTensor w;
  std::uint8_t* codes;
};

Unwritten unwritten(const Parts& parts) {
  check_parts(parts);
  struct Memory {
    Tensor codes, scale, offset, kind, order;
  };
  auto memory = std::make_shared<Memory>(Memory{Tensor({parts.rows, row_bytes(parts.cols, parts.bits)}, DType::u8),
                                                parts.scale, parts.offset, Tensor({1}, DType::u8), parts.order});
  memory->kind.data()[0] = static_cast<std::byte>(parts.offset_kind);
  Unwritten made{{}, reinterpret_cast<std::uint8_t*>(memory->codes.data())};
  QTensor& w = made.w;
  w.layout = &kLayout;
  w.rows = parts.rows;
  w.cols = parts.cols;
  w.bits = parts.bits;
  w.group = parts.group;
  w.dtype = parts.dtype;
  w.part = {memory->codes.view(), memory->scale.view(), memory->offset.view(), memory->kind.view(),
            memory->order.view()};
  w.owner = memory;
  return made;
}

/// Packs one block of plain codes.
void write_block(const CodeBlock& block, std::int32_t bits, std::int64_t bytes, std::uint8_t* out) {
  const std::int64_t stored = padded_cols(block.cols);
  for (std::int64_t r = 0; r < block.rows; ++r) {
    std::uint8_t* codes = block.codes + r * kBlockCols;
    std::fill(codes + block.cols, codes + stored, std::uint8_t{0});
    pack_block(codes, stored, bits, out + (block.row0 + r) * bytes + block.col0 / 8 * bits);
  }
}

}  // namespace

QTensor pack_blocks(Parts parts, const std::function<void(const CodeBlock&)>& fill, Exec& exec) {
  const Unwritten made = unwritten(parts);
  const std::int64_t bytes = row_bytes(parts.cols, parts.bits);
  for_tiles(parts.rows, parts.cols, exec, [&](const CodeBlock& block) {
    fill(block);
    write_block(block, parts.bits, bytes, made.codes);
  });
  return made.w;
}

QTensor pack_words(Parts parts, const std::function<void(const WordBlock&)>& fill, Exec& exec) {
  check(parts.bits == 4 || parts.bits == 8, "affine::pack_words: bits");
  const Unwritten made = unwritten(parts);
  const std::int64_t bytes = row_bytes(parts.cols, parts.bits), per_word = 32 / parts.bits;
  for_tiles(parts.rows, parts.cols, exec, [&](const CodeBlock& block) {
    alignas(64) std::array<std::uint32_t, kBlockRows * kBlockCols / 4> words;
    fill(WordBlock{block.row0, block.rows, block.col0, block.cols, words.data()});
    if (block.cols == kBlock) {
      for (std::int64_t r = 0; r < block.rows; r += kLanes) {
        std::uint8_t* to = made.codes + (block.row0 + r) * bytes + block.col0 / 8 * parts.bits;
        const std::int64_t rows = std::min<std::int64_t>(kLanes, block.rows - r);
        parts.bits == 4 ? pack_word_lanes<4>(words.data() + r, kBlockRows, rows, to, bytes)
                        : pack_word_lanes<8>(words.data() + r, kBlockRows, rows, to, bytes);
      }
      return;
    }
    const std::uint32_t mask = (1U << parts.bits) - 1;
    for (std::int64_t r = 0; r < block.rows; ++r) {
      for (std::int64_t k = 0; k < block.cols; ++k) {
        const std::uint32_t word = words[static_cast<std::size_t>(k / per_word * kBlockRows + r)];
        block.codes[r * kBlockCols + k] = static_cast<std::uint8_t>(word >> (k % per_word * parts.bits) & mask);
      }
    }
    write_block(block, parts.bits, bytes, made.codes);
  });
  return made.w;
}

void unpack_blocks(const QTensor& w, const std::function<void(const CodeBlock&)>& take, Exec& exec) {
  check(w.layout == &kLayout, "affine::unpack_blocks: another layout");
  const auto* const data = reinterpret_cast<const std::uint8_t*>(w.part[0].data());
  const std::int64_t bytes = row_bytes(w.cols, w.bits);
  for_tiles(w.rows, w.cols, exec, [&](const CodeBlock& block) {
    for (std::int64_t r = 0; r < block.rows; ++r) {
      unpack_block(data + (block.row0 + r) * bytes + block.col0 / 8 * w.bits, padded_cols(block.cols), w.bits,
                   block.codes + r * kBlockCols);
    }
    take(block);
  });
}

QTensor pack(const Plain& plain, Exec& exec) {
  check_plain(plain);
  const Shape groups{plain.rows, groups_of(plain.cols, plain.group)};
  Parts parts{.rows = plain.rows,
              .cols = plain.cols,
              .group = plain.group,
              .bits = plain.bits,
              .offset_kind = plain.offset_kind,
              .dtype = plain.dtype,
              .scale = float_tensor(plain.scale, groups, plain.dtype),
              .offset = float_tensor(plain.offset, groups, plain.dtype),
              .order = {}};
  if (!plain.order.empty()) {
    parts.order = Tensor(View(plain.order.data(), {static_cast<std::int64_t>(plain.order.size())}, DType::i32));
  }
  return pack_blocks(
      std::move(parts),
      [&](const CodeBlock& block) {
        for (std::int64_t r = 0; r < block.rows; ++r) {
          std::copy_n(plain.codes.data() + (block.row0 + r) * plain.cols + block.col0, block.cols,
                      block.codes + r * kBlockCols);
        }
      },
      exec);
}

Plain unpack(const QTensor& w, Exec& exec) {
  check(w.layout == &kLayout, "affine::unpack: another layout");
  Plain p{.rows = w.rows,
          .cols = w.cols,
          .group = w.group,
          .bits = w.bits,
          .offset_kind = offset_kind(w),
          .dtype = w.dtype,
          .codes = {},
          .scale = w.part[1].to_f32(),
          .offset = w.part[2].to_f32(),
          .order = {}};
  p.codes.resize(static_cast<std::size_t>(w.rows * w.cols));
  if (has_order(w)) p.order.assign(order_of(w).begin(), order_of(w).end());
  unpack_blocks(
      w,
      [&](const CodeBlock& block) {
        for (std::int64_t r = 0; r < block.rows; ++r) {
          std::copy_n(block.codes + r * kBlockCols, block.cols,
                      p.codes.data() + (block.row0 + r) * w.cols + block.col0);
        }
      },
      exec);
  return p;
}

}  // namespace nibble::affine
