// From v1 to v2 and back: other zero points in the file, the same weight in memory.
#include <array>

#include "base/error.h"
#include "quant/gptq/gptq.h"

namespace nibble::gptq {
namespace {

constexpr std::array<std::string_view, 2> kNames{"gptq", "gptq_v2"};

LinearWeights rewrite(const std::string& module, const LinearWeights& linear, std::string_view variant) {
  const auto* record = dynamic_cast<const Record*>(linear.record.get());
  check(record != nullptr, "gptq: not a GPTQ weight");
  auto changed = std::make_shared<Record>(*record);
  changed->zeros = variant == "gptq_v2" ? Zeros::v2 : Zeros::v1;
  const float lowest = changed->zeros == Zeros::v1 ? 1 : 0, most = static_cast<float>((1 << linear.weight.bits) - 1);
  const View& zeros = linear.weight.part[2];
  for (std::int64_t i = 0; i < zeros.count(); ++i) {
    const float zero = zeros.at(i);
    if (zero < lowest || zero > most + lowest) {
      throw bad_input(printable(module), ": a zero point of ", zero, " has no place in ", variant);
    }
  }
  LinearWeights out = linear;
  out.record = std::move(changed);
  return out;
}

void edit_config(Json& config, std::string_view variant, const QTensor&) {
  config.set("checkpoint_format", variant);
  if (config.get("format") != nullptr) config.set("format", variant);
  config.erase("is_marlin_format");  // false here; GPTQModel refuses the key, the format says it all
}

}  // namespace

constexpr SchemeVariants kVariants{kNames, &rewrite, &edit_config};

}  // namespace nibble::gptq
