// AWQ checkpoints (see README.md): tensors of a module <-> the affine layout.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "layout/affine/affine.h"
#include "quant/awq/config.h"
#include "quant/common/packed_module.h"

namespace nibble::awq {

/// What the format holds beyond the weight: its variant, and what stands where the gemv variants pad the groups of a
/// row.
struct Record final : FormatRecord {
  Variant variant = Variant::gemm;
  /// [rows, groups of padding]: scales like scales, zeros u8 (gemv) or f16. Empty when all zero, as writers leave it.
  Tensor scales_padding, zeros_padding;
};

/// The tensors of one module, checked against the config and each other. Views into the checkpoint.
struct ModuleParts {
  Variant variant = Variant::gemm;
  std::int64_t rows = 0, cols = 0, group = 0, groups = 0;
  std::int64_t stored_groups = 0;  ///< groups with padding (gemv and later)
  View qweight, qzeros, scales;
};

/// Words of eight zero points that the gemv variants keep per row: groups / 8 rounded up to 1, 2 (groups of 64) or 4
/// (groups of 32) words.
std::int64_t zeros_width(std::int64_t groups, std::int64_t group);

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
  ModuleParts parts(const PackedModule& tensors, LinearSize size) const;

  std::shared_ptr<const Checkpoint> checkpoint_;
  Config config_;
  std::vector<std::string> modules_;
};

/// The inverse of Reader::load.
std::vector<StoredTensor> store(const std::string& module, const LinearWeights& linear, Exec& exec);

/// gemm, gemv, gemv_fast and llm-awq.
extern const SchemeVariants kVariants;

}  // namespace nibble::awq
