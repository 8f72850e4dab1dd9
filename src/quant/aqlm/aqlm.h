// Reads and writes the checkpoints of AQLM (see README.md).
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "quant/common/stored_tensor.h"
#include "quant/scheme.h"

namespace nibble::aqlm {

/// quantization_config; the defaults are Transformers'.
struct Config {
  std::int64_t num_codebooks = 1;        ///< K
  std::int64_t nbits_per_codebook = 16;  ///< N
  std::int64_t out_group_size = 1;
  std::int64_t in_group_size = 8;
  std::vector<std::string> not_to_quantize;  ///< linear_weights_not_to_quantize: names of parameters
};

/// Checks types and ranges; `where` (the file) begins messages.
Config parse_config(const Json& json, const std::string& where);

/// The integer type in which N-bit codes are stored.
DType code_dtype(std::int64_t nbits);

class Reader final : public SchemeReader {
 public:
  explicit Reader(std::shared_ptr<const Checkpoint> checkpoint);

  bool has(std::string_view module) const override;
  LinearWeights load(const std::string& module, LinearSize size, Exec& exec) const override;
  std::vector<std::string> modules() const override { return modules_; }
  std::string describe(std::string_view module) const override;

  const Config& config() const { return config_; }

 private:
  struct Parts {
    const TensorEntry* codes = nullptr;
    const TensorEntry* codebooks = nullptr;
    const TensorEntry* scales = nullptr;
  };
  Parts parts(const std::string& module) const;

  std::shared_ptr<const Checkpoint> checkpoint_;
  Config config_;
  std::vector<std::string> modules_;
};

/// The exact inverse of Reader::load, under today's tensor names.
quant::StoredTensors store(const std::string& module, const LinearWeights& linear);

}  // namespace nibble::aqlm
