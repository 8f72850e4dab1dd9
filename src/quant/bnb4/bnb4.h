// Reads and writes the 4-bit weights of bitsandbytes: NF4 and FP4 (see README.md).
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "layout/lut4/lut4.h"
#include "quant/common/bnb_config.h"
#include "quant/common/stored_tensor.h"
#include "quant/scheme.h"

namespace nibble::bnb4 {

/// What the JSON text in `weight.quant_state.bitsandbytes__<type>` says.
struct QuantState {
  std::string quant_type;  ///< "nf4" or "fp4"
  std::int64_t block = 0;
  DType dtype = DType::f32;  ///< of the weight before quantization
  std::int64_t rows = 0, cols = 0;
  std::optional<lut4::Nested> nested;
};

/// Checks keys, types and ranges; `where` (file and tensor) begins messages.
QuantState parse_state(std::string_view text, const std::string& where);
/// The text as the library writes it, byte for byte.
std::string state_text(const QuantState& state);

/// 16 values of a quant_type, or nullptr.
const std::array<float, 16>* table_of(std::string_view quant_type);

class Reader final : public SchemeReader {
 public:
  explicit Reader(std::shared_ptr<const Checkpoint> checkpoint);

  bool has(std::string_view module) const override;
  LinearWeights load(const std::string& module, LinearSize size, Exec& exec) const override;
  std::vector<std::string> modules() const override { return modules_; }
  std::string describe(std::string_view module) const override;

  const bnb::Config& config() const { return config_; }

 private:
  /// The checked tensors of one module.
  struct Parts {
    QuantState state;
    const TensorEntry* weight = nullptr;
    const TensorEntry* absmax = nullptr;
    bool repair = false;  ///< absmax is the transposed bf16 matrix of a file saved after a forward pass
    View nested_absmax, nested_map;
  };
  Parts parts(const std::string& module) const;
  QuantState state(const std::string& module) const;
  void check_absmax(const std::string& module, Parts& parts) const;

  std::shared_ptr<const Checkpoint> checkpoint_;
  bnb::Config config_;
  std::vector<std::string> modules_;
};

/// The exact inverse of Reader::load: all tensors of `module`. Absmax of a repaired file is written as it should be.
quant::StoredTensors store(const std::string& module, const LinearWeights& linear);

}  // namespace nibble::bnb4
