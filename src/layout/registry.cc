// The list of layouts and the choice of a kernel.
#include "layout/layout.h"

namespace nibble {

#define NIBBLE_LAYOUT(folder)  \
  namespace folder {           \
  extern const Layout kLayout; \
  }
#include "layout/layouts.def"
#undef NIBBLE_LAYOUT

namespace {

/// The kernel of exec.target, or ref's when that target has none.
template <class Function>
Function pick(const Layout& layout, Target target, Function Kernels::*which) {
  const Kernels* own = layout.kernels[static_cast<std::size_t>(target)];
  if (own != nullptr && own->*which != nullptr) return own->*which;
  return layout.kernels[static_cast<std::size_t>(Target::ref)]->*which;
}

}  // namespace

std::span<const Layout* const> all_layouts() {
#define NIBBLE_LAYOUT(folder) &folder::kLayout,
  static constexpr const Layout* list[] = {
#include "layout/layouts.def"
  };
#undef NIBBLE_LAYOUT
  return list;
}

std::int64_t QTensor::size_bytes() const {
  std::int64_t total = 0;
  for (const View& view : part) total += static_cast<std::int64_t>(view.size_bytes());
  return total;
}

void matmul(const QTensor& w, const MatArgs& args, Exec& exec) {
  check(w.layout != nullptr, "matmul: empty weight");
  if (args.m == 0 || w.rows == 0) return;
  pick(*w.layout, exec.target, &Kernels::matmul)(w, args, exec);
}

void matmul_many(std::span<const MatJob> jobs, Exec& exec) {
  for (const MatJob& job : jobs) matmul(*job.w, job.args, exec);
}

void decode(const QTensor& w, std::int64_t row0, std::int64_t rows, float* out, Exec& exec) {
  check(w.layout != nullptr, "decode: empty weight");
  check(row0 >= 0 && rows >= 0 && row0 + rows <= w.rows, "decode: range of rows");
  pick(*w.layout, exec.target, &Kernels::decode)(w, row0, rows, out, exec);
}

}  // namespace nibble
