#include "layout/dense/dense.h"

#include "layout/dense/kernels.h"
#include "layout/ref-inl.h"

namespace nibble::dense {
namespace {

void decode_row(const QTensor& w, std::int64_t row, float* out) {
  const View& weight = w.part[0];
  convert_to_f32(weight.dtype(), weight.data() + row * w.cols * static_cast<std::int64_t>(size_of(weight.dtype())), out,
                 w.cols);
}

void ref_matmul(const QTensor& w, const MatArgs& args, Exec& exec) { ref::matmul(w, args, exec, &decode_row); }
void ref_decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  ref::decode(w, row0, rows, out, exec, &decode_row);
}

constexpr Kernels kRef{&ref_matmul, &ref_decode};
constexpr std::string_view kParts[] = {"weight"};

}  // namespace

constexpr Layout kLayout{"dense", kParts, {&kRef, &kCpu}};

QTensor make(const View& weight, std::shared_ptr<const void> owner) {
  if (weight.rank() != 2)
    throw bad_input("dense weight: shape ", to_string(weight.shape()), ", expected two dimensions");
  const DType dtype = weight.dtype();
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16) {
    throw bad_input("dense weight: dtype ", name_of(dtype), " (f32, f16 and bf16 are supported)");
  }
  QTensor w;
  w.layout = &kLayout;
  w.rows = weight.dim(0);
  w.cols = weight.dim(1);
  w.bits = static_cast<std::int32_t>(8 * size_of(dtype));
  w.group = w.cols;
  w.dtype = dtype;
  w.part[0] = weight;
  w.owner = std::move(owner);
  return w;
}

}  // namespace nibble::dense
