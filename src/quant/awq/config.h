// What an AWQ checkpoint's config files say (see README.md), parsed and range-checked once.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "quant/common/quant_config.h"

namespace nibble::awq {

/// How the tensors lie on disk.
enum class Variant : std::uint8_t { gemm, gemv, gemv_fast, llm_awq };

std::string_view name_of(Variant variant);
/// The inverse. Throws Error(bad_input).
Variant variant_named(std::string_view name);

struct Config {
  Variant variant = Variant::gemm;
  /// Inputs per group, -1: all. None (llm-awq files without a config): the tensors say it.
  std::optional<std::int64_t> group;
  std::string version;             ///< as the config spells it, "" when it does not
  std::vector<std::string> notes;  ///< for SchemeReader::notes
};

/// Throws Error(bad_input) naming file and key. `files` may have no sources when the checkpoint is llm-awq's.
Config parse(const QuantConfig& files, const Checkpoint& checkpoint);

/// Checks `modules_to_fuse` (and do_fuse, fuse_max_seq_len) as the guide describes them: the modules named exist, heads
/// and hidden size are those of config.json. nibble computes the same with and without fusing. Throws Error(bad_input).
void check_fusing(const QuantConfig& files, const Checkpoint& checkpoint);

}  // namespace nibble::awq
