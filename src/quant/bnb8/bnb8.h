// Reads and writes the 8-bit weights of bitsandbytes: LLM.int8 (see README.md).
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "quant/common/bnb_config.h"
#include "quant/common/stored_tensor.h"
#include "quant/scheme.h"

namespace nibble::bnb8 {

class Reader final : public SchemeReader {
 public:
  explicit Reader(std::shared_ptr<const Checkpoint> checkpoint);

  bool has(std::string_view module) const override;
  LinearWeights load(const std::string& module, LinearSize size, Exec& exec) const override;
  std::vector<std::string> modules() const override { return modules_; }
  std::string describe(std::string_view module) const override;

  const bnb::Config& config() const { return config_; }

 private:
  struct Parts {
    const TensorEntry* weight = nullptr;
    const TensorEntry* absmax = nullptr;
  };
  Parts parts(const std::string& module) const;

  std::shared_ptr<const Checkpoint> checkpoint_;
  bnb::Config config_;
  std::vector<std::string> modules_;
};

/// The exact inverse of Reader::load. A weight_format that the file left out is written all the same, as the library
/// does.
quant::StoredTensors store(const std::string& module, const LinearWeights& linear);

}  // namespace nibble::bnb8
