// The numbers that `nibble inspect` shows, gathered from a checkpoint's headers (and, to verify, from all its bytes).
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/verify.h"
#include "device/device.h"
#include "quant/scheme.h"

namespace nibble::cli {

struct DTypeShare {
  std::int64_t tensors = 0;
  std::int64_t bytes = 0;
};

/// A linear that a scheme stores.
struct ModuleReport {
  std::string name;
  std::string form;             ///< "int4, group_size 128, sym, zero points v2 (symmetric zero points prove it)"
  LinearSize size;              ///< zeros where the format does not hold it
  std::int64_t parameters = 0;  ///< rows * cols
  std::int64_t bytes = 0;       ///< of its tensors, the bias aside
  double bits() const;          ///< per parameter
};

struct InspectReport {
  std::filesystem::path path;
  std::string architecture;  ///< from config.json, "" without
  std::string scheme;        ///< "" for plain tensors
  std::string scheme_from;   ///< why it is this scheme: "quant_method in config.json"
  std::vector<std::string> notes;
  std::vector<std::pair<std::filesystem::path, std::int64_t>> files;  ///< weight files and their sizes
  std::map<std::string, DTypeShare> dtypes;
  std::vector<ModuleReport> modules;
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;  ///< of all tensors: the footprint in memory when mapped
  double bits() const;     ///< per parameter
  std::optional<VerifyReport> verified;
};

InspectReport make_report(const std::shared_ptr<const Checkpoint>& checkpoint, bool verify, Exec& exec);

/// The name of a tensor's dtype as shown: nibble's, or the file's for types without arithmetic here.
std::string dtype_text(const TensorEntry& tensor);

/// What is wrong with a verified checkpoint, one line each; empty when nothing is.
std::vector<std::string> problems_of(const VerifyReport& report);

/// The whole report; `tensors` adds one object per tensor.
Json report_json(const InspectReport& report, const Checkpoint& checkpoint, bool tensors);

}  // namespace nibble::cli
