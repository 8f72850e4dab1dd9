// Reads the checkpoints that optimum-quanto writes (see README.md).
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "quant/quanto/weights.h"
#include "quant/scheme.h"

namespace nibble::quanto {

inline constexpr std::string_view kMapFile = "quanto_qmap.json";

/// One module of quanto_qmap.json.
struct MapEntry {
  std::optional<QType> weights;      ///< none: the weight is a plain tensor
  std::optional<QType> activations;  ///< an 8-bit type
};
using QuantizationMap = std::map<std::string, MapEntry, std::less<>>;

/// Parses and checks the map; `file` begins every message.
QuantizationMap parse_map(const Json& json, const std::string& file);
/// The inverse, in the given order.
Json map_json(const std::vector<std::pair<std::string, MapEntry>>& modules);

/// The stored tensors of one module, checked against each other. Views into the checkpoint.
struct ModuleParts {
  WeightSpec spec;
  Extent extent;  ///< of the whole weight; one group per row when the size is not known
  View data, scale, shift;
};

/// How the tensors of a module lie in the checkpoint, where the QTensor does not tell.
struct Record final : FormatRecord {
  std::vector<TensorPlan> weight;                    ///< stored parts of the weight; empty: the module is not frozen
  bool grouped = false;                              ///< packed tensors are [groups, group]
  std::vector<std::pair<std::string, View>> others;  ///< bias, input_scale, output_scale, a plain weight
  std::shared_ptr<const void> owner;                 ///< of `others`
};

/// The tensors of `module` with the bytes that were loaded; for a weight from elsewhere (no Record), those that
/// quantizing along the first axis would give.
std::vector<StoredTensor> store(const std::string& module, const LinearWeights& linear, Exec& exec);

class Reader final : public SchemeReader {
 public:
  explicit Reader(std::shared_ptr<const Checkpoint> checkpoint);

  bool has(std::string_view module) const override { return find(module) != nullptr; }
  LinearWeights load(const std::string& module, LinearSize size, Exec& exec) const override;
  std::vector<std::string> modules() const override;
  std::string describe(std::string_view module) const override;
  LinearSize size(std::string_view module) const override;

  /// The tensors of a frozen module whose weight has the shape [size.rows, size.cols].
  ModuleParts parts(const std::string& module, LinearSize size) const;
  const QuantizationMap& map() const { return map_; }

 private:
  const MapEntry* find(std::string_view module) const;
  bool frozen(std::string_view module) const;
  const TensorEntry& entry(const std::string& tensor) const;
  ModuleParts byte_parts(const std::string& module, QType qtype, LinearSize size) const;
  ModuleParts packed_parts(const std::string& module, QType qtype, LinearSize size) const;
  QTensor weight_of(const std::string& module, QType qtype, LinearSize size, Exec& exec) const;
  QTensor unfrozen(const std::string& module, QType qtype, LinearSize size, Exec& exec) const;
  QTensor to_layout(const ModuleParts& parts, std::shared_ptr<const void> owner, Exec& exec) const;
  std::optional<View> bias(const std::string& module, std::int64_t rows) const;
  std::optional<ActivationQuant> activation(const std::string& module, const MapEntry& entry) const;
  std::shared_ptr<const Record> record(const std::string& module, LinearSize size) const;
  float scale_of(const std::string& tensor) const;

  std::shared_ptr<const Checkpoint> checkpoint_;
  QuantizationMap map_;
};

}  // namespace nibble::quanto
