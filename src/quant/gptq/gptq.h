// GPTQ checkpoints (see README.md): tensors of a module <-> the affine layout.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "quant/common/packed_module.h"
#include "quant/gptq/config.h"

namespace nibble::gptq {

/// What the format holds beyond the weight.
struct Record final : FormatRecord {
  Zeros zeros = Zeros::v1;
  bool blank_g_idx = false;  ///< g_idx was all zero though there are several groups: an old writer's placeholder
};

/// The tensors of one module, checked against the config and each other. Views into the checkpoint.
struct ModuleParts {
  ModuleSpec spec;
  std::int64_t rows = 0, cols = 0, group = 0, groups = 0;
  View qweight;                     ///< i32 [cols * bits / 32, rows]
  View qzeros;                      ///< i32 [groups, rows * bits / 32]
  View scales;                      ///< float [groups, rows]
  View g_idx;                       ///< i32 [cols]
  std::vector<std::int32_t> order;  ///< inputs by group; empty when groups are consecutive
  bool blank_g_idx = false;
};

class Reader final : public SchemeReader {
 public:
  explicit Reader(std::shared_ptr<const Checkpoint> checkpoint);

  bool has(std::string_view module) const override;
  LinearWeights load(const std::string& module, LinearSize size, Exec& exec) const override;
  std::vector<std::string> modules() const override { return modules_; }
  std::string describe(std::string_view module) const override;
  LinearSize size(std::string_view module) const override;
  std::vector<std::string> notes() const override { return config_.notes; }

 private:
  struct Verdict {
    Zeros zeros;
    std::string why;
  };
  ModuleParts parts(const PackedModule& tensors, LinearSize size) const;
  Verdict zeros_of(const ModuleParts& parts) const;

  std::shared_ptr<const Checkpoint> checkpoint_;
  Config config_;
  std::vector<std::string> modules_;
};

/// The inverse of Reader::load.
std::vector<StoredTensor> store(const std::string& module, const LinearWeights& linear, Exec& exec);

/// v1 ("gptq") and v2 ("gptq_v2").
extern const SchemeVariants kVariants;

}  // namespace nibble::gptq
