#include "layout/rows8/rows8.h"

#include "layout/ref-inl.h"
#include "layout/rows8/kernels.h"
#include "layout/rows8/llm_int8.h"

namespace nibble::rows8 {
namespace {

bool is_code(DType dtype) {
  return dtype == DType::i8 || dtype == DType::f8_e4m3fn || dtype == DType::f8_e5m2 || dtype == DType::f8_e4m3fnuz;
}

bool is_value(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

void decode_row(const QTensor& w, std::int64_t row, float* out) {
  const float scale = w.part[1].at(row);
  convert_to_f32(w.part[0].dtype(), w.part[0].data() + row * w.cols, out, w.cols);
  for (std::int64_t k = 0; k < w.cols; ++k) out[k] = round_to(w.dtype, scale * out[k]);
}

void ref_matmul(const QTensor& w, const MatArgs& args, Exec& exec) {
  if (is_llm_int8(w)) return llm_int8_matmul(w, args, exec, kRefSteps);
  ref::matmul(w, args, exec, &decode_row);
}
void ref_decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  if (is_llm_int8(w)) return llm_int8_decode(w, row0, rows, out, exec);
  ref::decode(w, row0, rows, out, exec, &decode_row);
}

constexpr Kernels kRef{&ref_matmul, &ref_decode};
constexpr std::string_view kParts[] = {"q", "scale", "threshold"};

/// One scale for all rows, repeated row by row.
Tensor spread(const View& scale, std::int64_t rows) {
  Tensor out({rows}, scale.dtype());
  const std::size_t size = size_of(scale.dtype());
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r)
    std::copy_n(scale.data(), size, out.data() + r * size);
  return out;
}

}  // namespace

constexpr Layout kLayout{"rows8", kParts, {&kRef, &kCpu}};

QTensor make(const View& q, const View& scale, DType dtype, std::shared_ptr<const void> owner) {
  if (q.rank() != 2) throw bad_input("rows8 codes: shape ", to_string(q.shape()), ", expected two dimensions");
  if (!is_code(q.dtype()))
    throw bad_input("rows8 codes: dtype ", name_of(q.dtype()), " (i8 and the f8 types are supported)");
  if (!is_value(scale.dtype()))
    throw bad_input("rows8 scale: dtype ", name_of(scale.dtype()), " (f32, f16 and bf16 are supported)");
  if (!is_value(dtype)) throw bad_input("rows8 values: dtype ", name_of(dtype), " (f32, f16 and bf16 are supported)");
  const std::int64_t rows = q.dim(0);
  if (scale.count() != rows && scale.count() != 1) {
    throw bad_input("rows8 scale: shape ", to_string(scale.shape()), ", expected ", rows, " elements or one");
  }
  QTensor w;
  w.layout = &kLayout;
  w.rows = rows;
  w.cols = q.dim(1);
  w.bits = 8;
  w.group = w.cols;
  w.dtype = dtype;
  w.part[0] = q;
  w.owner = std::move(owner);
  if (scale.count() == rows) {
    w.part[1] = scale.reshaped({rows});
  } else {
    const Tensor all = spread(scale, rows);
    w.part[1] = all.view();
    w.owner =
        std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<const void>>>(w.owner, all.owner());
  }
  return w;
}

}  // namespace nibble::rows8
