// y^T = W x^T in tiles of 16 x 16 outputs and 32 inputs. Weights are the left operand: their rows are copied (or
// decoded) as they are. x is the right operand and is packed once, with pairs of inputs side by side as the instruction
// wants them:
//
//   packed x: [columns / 256][tokens / 32][step of 32 columns][2 tiles of 16 tokens][16 pairs][16 tokens][2]
//   panel:    [chunk's 256 columns][rows / 32][step][2 tiles of 16 rows][16 rows][32 columns]
//   sums:     [tokens / 32][rows / 32][4 tiles][16 rows][16 tokens] f32
#include "layout/gemm_amx.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace nibble::amx {
namespace {

constexpr std::int64_t kTileBytes = 1024;

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes_per_row[16] = {};
  std::uint8_t rows[16] = {};
};

void configure() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.bytes_per_row[i] = 64;
    config.rows[i] = 16;
  }
  _tile_loadconfig(&config);
}

/// Columns and rows of a 16 x 16 matrix of 32-bit elements swapped.
inline void transpose(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

/// 32 floats as bf16.
inline __m512i narrow(const float* from) {
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + 16), _mm512_loadu_ps(from));
}

/// The first `count` of 32 floats as bf16, zeros behind them.
inline __m512i narrow(const float* from, std::int64_t count) {
  if (count >= 32) return narrow(from);
  const std::uint32_t mask = (1U << count) - 1;
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
  const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16);
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/// Sums of 32 rows x 32 tokens over `steps` * 32 columns.
/// On the way it asks for 128 bytes at `ahead` per step.
inline void multiply(const std::byte* a, const std::byte* b, std::byte* c, std::int64_t steps, bool first,
                     const std::byte* ahead) {
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, c, 64);
    _tile_loadd(1, c + kTileBytes, 64);
    _tile_loadd(2, c + 2 * kTileBytes, 64);
    _tile_loadd(3, c + 3 * kTileBytes, 64);
  }
  for (std::int64_t s = 0; s < steps; ++s, a += 2 * kTileBytes, b += 2 * kTileBytes) {
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    _mm_prefetch(reinterpret_cast<const char*>(ahead + 128 * s), _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(ahead + 128 * s + 64), _MM_HINT_T1);
    _tile_loadd(7, b + kTileBytes, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + kTileBytes, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, 64);
  _tile_stored(1, c + kTileBytes, 64);
  _tile_stored(2, c + 2 * kTileBytes, 64);
  _tile_stored(3, c + 3 * kTileBytes, 64);
}

/// Where row `row` of a panel of `rows` (a multiple of 32) keeps step `step` of its chunk's columns.
inline std::byte* place(std::byte* panel, std::int64_t rows, std::int64_t chunk_columns, std::int64_t row,
                        std::int64_t step) {
  const std::int64_t part = step * 32 / kColumns * kColumns, steps = std::min(kColumns, chunk_columns - part) / 32;
  std::byte* base = panel + part * rows * 2 + row / 32 * steps * 2 * kTileBytes;
  return base + (step - part / 32) * 2 * kTileBytes + row / 16 % 2 * kTileBytes + row % 16 * 64;
}

/// Rows [row0, row0 + rows) of one chunk of columns; rows from row1 on are zero.
void pack_panel(const Job& job, std::int64_t row0, std::int64_t row1, std::int64_t rows, std::int64_t k0,
                std::byte* panel, float* floats) {
  const std::int64_t count = std::min(kChunk, job.w->cols - k0), columns = padded_columns(count);
  for (std::int64_t r = 0; r < rows; ++r) {
    const bool real = row0 + r < row1;
    const std::byte* bits = real && job.layout->bf16 != nullptr ? job.layout->bf16(*job.w, row0 + r, k0) : nullptr;
    if (real && bits == nullptr) job.layout->factors(*job.w, DType::bf16, row0 + r, k0, count, floats);
    for (std::int64_t step = 0; step < columns / 32; ++step) {
      __m512i v = _mm512_setzero_si512();
      if (bits != nullptr) {
        const std::int64_t left = std::min<std::int64_t>(32, count - 32 * step);
        const __mmask32 mask = left == 32 ? ~__mmask32{0} : (__mmask32{1} << left) - 1;
        v = _mm512_maskz_loadu_epi16(mask, bits + 64 * step);
      } else if (real) {
        v = narrow(floats + 32 * step);
      }
      _mm512_store_si512(place(panel, rows, columns, r, step), v);
    }
  }
}

/// Scales, adds the bias and stores a tile of sums, [16 rows][16 tokens], into y.
void store_tile(const Job& job, const std::byte* sums, std::int64_t row, std::int64_t token, std::int64_t rows,
                __m512 scale, __m512 bias) {
  __m512i t[16];
  for (int i = 0; i < 16; ++i) t[i] = _mm512_load_si512(sums + 64 * i);
  transpose(t);
  const __mmask16 mask = rows >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1U << rows) - 1);
  const std::int64_t tokens = std::min<std::int64_t>(16, job.m - token);
  for (std::int64_t i = 0; i < tokens; ++i) {
    const __m512 v = _mm512_add_ps(_mm512_mul_ps(_mm512_castsi512_ps(t[i]), scale), bias);
    _mm512_mask_storeu_ps(job.y + (token + i) * job.ldy + row, mask, v);
  }
}

/// Scales and biases of a panel's rows, zero beyond them.
struct alignas(64) RowTerms {
  float scale[kPanel], bias[kPanel];

  RowTerms(const Job& job, std::int64_t row0, std::int64_t row1) {
    for (std::int64_t r = 0; r < kPanel; ++r) {
      const bool real = row0 + r < row1;
      scale[r] = real ? job.layout->row_scale(*job.w, row0 + r) : 0;
      bias[r] = real && job.bias != nullptr ? job.bias[row0 + r] : 0;
    }
  }
};

/// Stores the outputs of tokens [32 t, 32 t + 32): `sums` are theirs, one row pair of tiles after the other.
void store_tokens(const Job& job, const std::byte* sums, std::int64_t t, std::int64_t row0, std::int64_t rows,
                  const RowTerms& terms) {
  for (std::int64_t token = 32 * t; token < std::min(job.m, 32 * t + 32); token += 16) {
    for (std::int64_t r = 0; r < rows; r += 16) {
      const std::byte* tile = sums + (r / 32 * 4 + r / 16 % 2 * 2 + token / 16 % 2) * kTileBytes;
      store_tile(job, tile, row0 + r, token, rows - r, _mm512_load_ps(terms.scale + r), _mm512_load_ps(terms.bias + r));
    }
  }
}

/// Names what is packed next (bf16 weights in place), piece by piece, so that it is brought from memory while tiles are
/// multiplied.
class Ahead {
 public:
  /// Rows [row0, row0 + rows) below `end`, columns from k0 on.
  Ahead(const Job& job, std::int64_t row0, std::int64_t rows, std::int64_t end, std::int64_t k0)
      : job_(job), row_(row0), end_(job.layout->bf16 == nullptr ? row0 : std::min(end, row0 + rows)), k0_(k0) {}

  /// The next row's piece, a kChunk of columns; `otherwise` when all were named.
  const std::byte* next(const std::byte* otherwise) {
    if (row_ >= end_) return otherwise;
    const std::byte* from = job_.layout->bf16(*job_.w, row_++, k0_);
    return from != nullptr ? from : otherwise;
  }

 private:
  const Job& job_;
  std::int64_t row_, end_, k0_;
};

void one_panel(const Job& job, std::int64_t row0, std::int64_t row1, std::int64_t end) {
  const std::int64_t rows = (row1 - row0 + 31) / 32 * 32, tokens = padded_tokens(job.m);
  const RowTerms terms(job, row0, row1);
  std::byte* panel = job.scratch;
  auto* floats = reinterpret_cast<float*>(panel + kPanel * kChunk * 2);
  std::byte* sums = panel + kPanel * kChunk * 2 + kChunk * 4;
  for (std::int64_t k0 = 0; k0 < job.w->cols; k0 += kChunk) {
    pack_panel(job, row0, row1, rows, k0, panel, floats);
    const std::int64_t columns = padded_columns(std::min(kChunk, job.w->cols - k0));
    const bool last = k0 + kChunk >= job.w->cols;
    Ahead ahead(job, last ? row1 : row0, rows, end, last ? 0 : k0 + kChunk);
    for (std::int64_t part = 0; part < columns; part += kColumns) {
      const std::int64_t steps = std::min(kColumns, columns - part) / 32;
      const std::byte* x = job.x + (k0 + part) * tokens * 2;
      for (std::int64_t t = 0; t < tokens / 32; ++t) {
        for (std::int64_t r = 0; r < rows / 32; ++r) {
          multiply(panel + part * rows * 2 + r * steps * 2 * kTileBytes, x + t * steps * 2 * kTileBytes,
                   sums + (t * (rows / 32) + r) * 4 * kTileBytes, steps, k0 + part == 0, ahead.next(panel));
        }
        if (last && part + kColumns >= columns) {
          store_tokens(job, sums + t * (rows / 32) * 4 * kTileBytes, t, row0, row1 - row0, terms);
        }
      }
    }
  }
}

}  // namespace

void pack_tokens(const float* x, std::int64_t m, std::int64_t ldx, std::int64_t cols, std::int64_t token0,
                 std::byte* packed) {
  const std::int64_t tokens = padded_tokens(m), columns = padded_columns(cols);
  for (std::int64_t k = 0; k < columns; k += 32) {
    const std::int64_t part = k / kColumns * kColumns, steps = std::min(kColumns, columns - part) / 32;
    std::byte* tile = packed + part * tokens * 2 + (token0 / 32 * steps + (k - part) / 32) * 2 * kTileBytes +
                      token0 / 16 % 2 * kTileBytes;
    __m512i pairs[16];
    for (std::int64_t t = 0; t < 16; ++t)
      pairs[t] = token0 + t < m ? narrow(x + (token0 + t) * ldx + k, cols - k) : _mm512_setzero_si512();
    transpose(pairs);
    for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + 64 * i, pairs[i]);
  }
}

void matmul(const Job& job, std::int64_t row0, std::int64_t row1) {
  configure();
  for (std::int64_t row = row0; row < row1; row += kPanel) one_panel(job, row, std::min(row1, row + kPanel), row1);
  _tile_release();
}

}  // namespace nibble::amx
