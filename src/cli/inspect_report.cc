#include "cli/inspect_report.h"

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "quant/scheme.h"

namespace nibble::cli {
namespace fs = std::filesystem;
namespace {

double bits_per(std::int64_t bytes, std::int64_t parameters) {
  return parameters == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters);
}

std::string architecture_of(const Json& config) {
  if (const Json* list = config.get("architectures"); list != nullptr && list->is_array()) {
    const auto& names = list->array("");
    if (!names.empty() && names[0].is_string()) return names[0].string("");
  }
  const Json* type = config.get("model_type");
  return type != nullptr && type->is_string() ? type->string("") : "";
}

/// The tensors whose names begin with `prefix`: a range, since they are ordered by name.
std::span<const TensorEntry> tensors_below(std::span<const TensorEntry> all, const std::string& prefix) {
  const auto begin =
      std::lower_bound(all.begin(), all.end(), prefix,
                       [](const TensorEntry& entry, const std::string& key) { return entry.name < key; });
  auto end = begin;
  while (end != all.end() && end->name.starts_with(prefix)) ++end;
  return {begin, end};
}

std::vector<ModuleReport> module_reports(const WeightStore& store, Exec& exec) {
  std::vector<ModuleReport> modules;
  for (const std::string& name : store.reader()->modules()) {
    ModuleReport module;
    module.name = name;
    module.form = store.reader()->describe(name);
    module.size = store.reader()->size(name);
    if (module.size.rows * module.size.cols == 0) {
      const QTensor weight = store.linear(name, exec).weight;
      module.size = {weight.rows, weight.cols};
    }
    module.parameters = module.size.rows * module.size.cols;
    for (const TensorEntry& tensor : tensors_below(store.checkpoint().tensors(), name + ".")) {
      if (tensor.name != name + ".bias") module.bytes += static_cast<std::int64_t>(tensor.view.size_bytes());
    }
    modules.push_back(std::move(module));
  }
  return modules;
}

/// What made the checkpoint this scheme's.
std::string reason_of(const Checkpoint& checkpoint) {
  if (checkpoint.json_file("quanto_qmap.json")) return "quanto_qmap.json";
  const auto method_in = [](const Json& config, const std::string& file) {
    for (const char* key : {"quant_method", "method"}) {
      if (config.get(key) != nullptr) return cat(key, " in ", file);
    }
    return cat("the keys of ", file);
  };
  for (const char* name : {"quantize_config.json", "quant_config.json"}) {
    if (const std::optional<Json> own = checkpoint.json_file(name)) return method_in(*own, name);
  }
  const Json* config = checkpoint.config().get("quantization_config");
  return config != nullptr ? method_in(*config, "config.json") : "the names of its tensors";
}

/// Elements of the tensors that are no part of a quantized weight.
std::int64_t plain_parameters(const Checkpoint& checkpoint, const std::vector<ModuleReport>& modules) {
  std::int64_t count = 0;
  for (const TensorEntry& tensor : checkpoint.tensors()) count += tensor.view.count();
  for (const ModuleReport& module : modules) {
    for (const TensorEntry& tensor : tensors_below(checkpoint.tensors(), module.name + ".")) {
      if (tensor.name != module.name + ".bias") count -= tensor.view.count();
    }
  }
  return count;
}

Json verify_json(const VerifyReport& report) {
  Json::Array tensors, files;
  for (const TensorHealth& tensor : report.tensors) {
    tensors.push_back(Json::Object{
        {"name", tensor.name}, {"nan", tensor.nan}, {"inf", tensor.infinite}, {"all_zero", tensor.all_zero}});
  }
  for (const FileHealth& file : report.files) {
    Json entry = Json::Object{{"file", file.file.filename().string()}, {"ok", file.problem.empty()}};
    if (!file.sha256.empty()) entry.set("sha256", file.sha256);
    if (!file.problem.empty()) entry.set("problem", file.problem);
    files.push_back(std::move(entry));
  }
  return Json::Object{{"values", report.values},
                      {"ok", problems_of(report).empty()},
                      {"tensors", std::move(tensors)},
                      {"files", std::move(files)}};
}

Json tensors_json(const Checkpoint& checkpoint) {
  Json::Array list;
  for (const TensorEntry& tensor : checkpoint.tensors()) {
    Json::Array shape(tensor.view.shape().begin(), tensor.view.shape().end());
    list.push_back(Json::Object{{"name", tensor.name},
                                {"dtype", dtype_text(tensor)},
                                {"shape", std::move(shape)},
                                {"bytes", static_cast<std::int64_t>(tensor.view.size_bytes())},
                                {"file", tensor.file.filename().string()}});
  }
  return list;
}

}  // namespace

double ModuleReport::bits() const { return bits_per(bytes, parameters); }
double InspectReport::bits() const { return bits_per(bytes, parameters); }

std::string dtype_text(const TensorEntry& tensor) {
  return tensor.raw_dtype.empty() ? std::string(name_of(tensor.view.dtype())) : tensor.raw_dtype;
}

InspectReport make_report(const std::shared_ptr<const Checkpoint>& checkpoint, bool verify, Exec& exec) {
  InspectReport report;
  report.path = checkpoint->folder();
  report.architecture = architecture_of(checkpoint->config());
  for (const fs::path& file : weight_files(*checkpoint)) {
    std::error_code error;
    const auto size = fs::file_size(file, error);
    report.files.emplace_back(file, error ? 0 : static_cast<std::int64_t>(size));
  }
  for (const TensorEntry& tensor : checkpoint->tensors()) {
    DTypeShare& share = report.dtypes[dtype_text(tensor)];
    ++share.tensors;
    share.bytes += static_cast<std::int64_t>(tensor.view.size_bytes());
    report.bytes += static_cast<std::int64_t>(tensor.view.size_bytes());
  }
  const WeightStore store(checkpoint);
  if (store.scheme() != nullptr) {
    report.scheme = store.scheme()->name;
    report.scheme_from = reason_of(*checkpoint);
    report.notes = store.reader()->notes();
    report.modules = module_reports(store, exec);
  }
  report.parameters = plain_parameters(*checkpoint, report.modules);
  for (const ModuleReport& module : report.modules) report.parameters += module.parameters;
  if (verify) report.verified = verify_checkpoint(*checkpoint, exec.pool);
  return report;
}

std::vector<std::string> problems_of(const VerifyReport& report) {
  std::vector<std::string> out;
  for (const FileHealth& file : report.files) {
    if (!file.problem.empty()) out.push_back(file.file.string() + ": damaged: " + file.problem);
  }
  for (const TensorHealth& tensor : report.tensors) {
    if (tensor.nan != 0 || tensor.infinite != 0) {
      out.push_back(cat("tensor ", printable(tensor.name), ": ", tensor.nan, " NaN, ", tensor.infinite, " infinite"));
    }
  }
  return out;
}

Json report_json(const InspectReport& report, const Checkpoint& checkpoint, bool tensors) {
  Json::Array files, modules, notes(report.notes.begin(), report.notes.end());
  for (const auto& [file, bytes] : report.files) {
    files.push_back(Json::Object{{"name", file.filename().string()}, {"bytes", bytes}});
  }
  for (const ModuleReport& module : report.modules) {
    modules.push_back(Json::Object{{"name", module.name},
                                   {"form", module.form},
                                   {"shape", Json::Array{module.size.rows, module.size.cols}},
                                   {"parameters", module.parameters},
                                   {"bytes", module.bytes},
                                   {"bits_per_weight", module.bits()}});
  }
  Json::Object dtypes;
  for (const auto& [name, share] : report.dtypes) {
    dtypes.emplace_back(name, Json::Object{{"tensors", share.tensors}, {"bytes", share.bytes}});
  }
  Json json = Json::Object{{"path", report.path.string()},
                           {"architecture", report.architecture},
                           {"scheme", report.scheme.empty() ? Json() : Json(report.scheme)},
                           {"scheme_from", report.scheme.empty() ? Json() : Json(report.scheme_from)},
                           {"files", std::move(files)},
                           {"tensor_count", static_cast<std::int64_t>(checkpoint.tensors().size())},
                           {"parameters", report.parameters},
                           {"bytes", report.bytes},
                           {"bits_per_weight", report.bits()},
                           {"dtypes", std::move(dtypes)},
                           {"modules", std::move(modules)},
                           {"notes", std::move(notes)}};
  if (tensors) json.set("tensors", tensors_json(checkpoint));
  if (report.verified) json.set("verify", verify_json(*report.verified));
  return json;
}

}  // namespace nibble::cli
