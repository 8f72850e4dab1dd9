// From the layout back to the tensors of the file.
#include <algorithm>
#include <cstring>

#include "quant/bnb4/bnb4.h"

namespace nibble::bnb4 {
namespace {

std::string type_of(const QTensor& w) {
  for (const std::string_view type : {"nf4", "fp4"}) {
    if (std::memcmp(w.part[2].data(), table_of(type)->data(), 16 * sizeof(float)) == 0) return std::string(type);
  }
  throw bad_input("a table that is neither NF4 nor FP4 has no place in a bitsandbytes checkpoint");
}

Tensor text_tensor(const std::string& text) {
  Tensor out({static_cast<std::int64_t>(text.size())}, DType::u8);
  std::memcpy(out.data(), text.data(), text.size());
  return out;
}

}  // namespace

quant::StoredTensors store(const std::string& module, const LinearWeights& linear) {
  const QTensor& w = linear.weight;
  check(w.layout == &lut4::kLayout, "bnb4::store: another layout");
  const QuantState state{.quant_type = type_of(w),
                         .block = w.group,
                         .dtype = w.dtype,
                         .rows = w.rows,
                         .cols = w.cols,
                         .nested = lut4::nested_of(w)};
  const std::string weight = module + ".weight";
  const Tensor text = text_tensor(state_text(state));
  quant::StoredTensors out;
  const auto add = [&](const std::string& name, const View& view) { out.push_back({name, view, w.owner}); };
  add(weight, w.part[0]);
  add(weight + ".absmax", w.part[1].reshaped({w.part[1].count()}));
  add(weight + ".quant_map", w.part[2]);
  if (state.nested) {
    add(weight + ".nested_absmax", w.part[3]);
    add(weight + ".nested_quant_map", w.part[4]);
  }
  out.push_back({cat(weight, ".quant_state.bitsandbytes__", state.quant_type), text.view(), text.owner()});
  if (linear.bias) add(module + ".bias", *linear.bias);
  return out;
}

}  // namespace nibble::bnb4
