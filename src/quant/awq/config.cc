#include "quant/awq/config.h"

#include <algorithm>
#include <array>

#include "base/error.h"

namespace nibble::awq {
namespace {

struct Spelling {
  std::string_view version;
  Variant variant;
};

/// "exllama" and "ipex" are choices of a kernel: their files are gemm files.
constexpr std::array<Spelling, 9> kSpellings{{{"gemm", Variant::gemm},
                                              {"exllama", Variant::gemm},
                                              {"exllamav2", Variant::gemm},
                                              {"ipex", Variant::gemm},
                                              {"gemv", Variant::gemv},
                                              {"gemv_fast", Variant::gemv_fast},
                                              {"gemvfast", Variant::gemv_fast},
                                              {"llm-awq", Variant::llm_awq},
                                              {"llm_awq", Variant::llm_awq}}};

Variant variant_of(const QuantConfig& files, Config& config) {
  const Keys keys{"version", "format", "checkpoint_format"};
  if (files.text({"backend"}) == "llm-awq") return Variant::llm_awq;
  const std::optional<std::string> version = files.text(keys);
  if (!version) {
    config.notes.emplace_back("no version in the config: the format's default, gemm");
    return Variant::gemm;
  }
  const auto found = std::find_if(kSpellings.begin(), kSpellings.end(),
                                  [&](const Spelling& spelling) { return spelling.version == *version; });
  if (found == kSpellings.end()) {
    throw bad_input(files.find(keys)->where, ": ", printable(*version, 40),
                    " is not supported (gemm, gemv, gemv_fast, exllama, ipex and llm-awq are)");
  }
  config.version = *version;
  return found->variant;
}

/// Checks the type of keys that change nothing here.
void check_others(const QuantConfig& files) {
  for (const char* key : {"zero_point", "do_fuse", "lm_head", "sym"}) files.boolean({key});
  if (const auto list = files.find({"modules_to_not_convert"})) {
    for (const Json& name : list->value->array(list->where)) name.string(list->where);
  }
  if (const auto exllama = files.find({"exllama_config"})) exllama->value->object(exllama->where);
  const auto dtype = files.text({"pack_dtype"});
  if (dtype && *dtype != "int32" && *dtype != "int16") {
    throw bad_input(files.find({"pack_dtype"})->where, ": ", printable(*dtype, 40), " is not supported (int32 is)");
  }
}

}  // namespace

std::string_view name_of(Variant variant) {
  constexpr std::array<std::string_view, 4> names{"gemm", "gemv", "gemv_fast", "llm-awq"};
  return names[static_cast<std::size_t>(variant)];
}

Variant variant_named(std::string_view name) {
  for (const Variant variant : {Variant::gemm, Variant::gemv, Variant::gemv_fast, Variant::llm_awq}) {
    if (name_of(variant) == name) return variant;
  }
  throw bad_input("awq: no variant ", printable(std::string(name), 40), " (gemm, gemv, gemv_fast and llm-awq)");
}

Config parse(const QuantConfig& files, const Checkpoint& checkpoint) {
  Config config;
  if (files.method() != "awq") {  // claimed by its tensors
    config.variant = Variant::llm_awq;
    config.notes.emplace_back(
        "no quantization config: llm-awq by its scaled_zeros, 4 bits, group size from the scales");
    return config;
  }
  const Keys bits_keys{"bits", "w_bit"}, group_keys{"group_size", "q_group_size"};
  const std::int64_t bits = files.integer(bits_keys).value_or(4);
  if (bits != 4) throw bad_input(files.find(bits_keys)->where, ": ", bits, " bits (AWQ has 4)");
  config.group = files.integer(group_keys).value_or(128);
  if (*config.group != -1 && *config.group < 1) {
    throw bad_input(files.find(group_keys)->where, ": ", *config.group,
                    " (a positive number of inputs, or -1 for all)");
  }
  config.variant = variant_of(files, config);
  check_others(files);
  check_fusing(files, checkpoint);
  if (files.find({"do_fuse", "fuse_max_seq_len", "modules_to_fuse", "exllama_config"})) {
    config.notes.emplace_back(
        "fusing and exllama settings: accepted; nibble computes the same for every variant without them");
  }
  return config;
}

}  // namespace nibble::awq
