#include "calib/awq_journal.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"

namespace nibble {
namespace {

constexpr const char* kWhere = "journal";
/// Behind a module's name: its factors, which the format has no place for.
constexpr const char *kInputs = ".journal_input_scales", *kOutputs = ".journal_output_scales";

const Json& member(const Json& json, const char* key) {
  const Json* found = json.find(key);
  if (found == nullptr) throw bad_input(kWhere, ": no field \"", key, "\"");
  return *found;
}

Json json_of(const AwqReport& report) {
  const auto finite = [](double value) { return std::isfinite(value) ? Json(value) : Json(); };
  Json::Array modules;
  for (const std::string& module : report.modules) modules.emplace_back(module);
  return Json::Object{{"modules", std::move(modules)}, {"tokens", report.tokens},
                      {"searched", report.searched},   {"ratio", report.ratio},
                      {"loss", finite(report.loss)},   {"plain_loss", finite(report.plain_loss)},
                      {"seconds", report.seconds}};
}

AwqReport awq_report_of(const Json& json) {
  const auto number = [&](const char* key) {
    const Json& value = member(json, key);
    return value.is_null() ? INFINITY : value.number(kWhere);
  };
  AwqReport report;
  for (const Json& module : member(json, "modules").array(kWhere)) report.modules.push_back(module.string(kWhere));
  report.tokens = member(json, "tokens").integer(kWhere);
  report.searched = member(json, "searched").boolean(kWhere);
  report.ratio = number("ratio");
  report.loss = number("loss");
  report.plain_loss = number("plain_loss");
  report.seconds = number("seconds");
  report.restored = true;
  return report;
}

StoredTensor floats(std::string name, const std::vector<float>& values) {
  const auto count = static_cast<std::int64_t>(values.size());
  return {std::move(name), Tensor(View(values.data(), {count}, DType::f32))};
}

/// Everything of a unit by name, so that it is looked through before any of it is used.
struct Parts {
  explicit Parts(JournalExtra extra) {
    for (StoredTensor& stored : extra.tensors) tensors.emplace(stored.name, std::move(stored.tensor));
    for (const Json& step : member(extra.json, "steps").array(kWhere)) steps.push_back(awq_report_of(step));
    for (const Json& name : member(extra.json, "replaced").array(kWhere)) replaced.push_back(name.string(kWhere));
    for (const std::string& name : replaced) at(name);
  }

  Tensor& at(const std::string& name) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) throw bad_input(kWhere, ": no tensor ", printable(name));
    return found->second;
  }
  std::vector<float> floats(const std::string& name, std::int64_t count) {
    std::vector<float> values = at(name).view().to_f32();
    if (static_cast<std::int64_t>(values.size()) != count)
      throw bad_input(kWhere, ": length of tensor ", printable(name));
    return values;
  }

  std::map<std::string, Tensor> tensors;
  std::vector<AwqReport> steps;
  std::vector<std::string> replaced;
};

}  // namespace

void store_awq_block(Journal& journal, std::int64_t unit, const AwqBlockRecord& record,
                     const awq::Quantizer& quantizer) {
  JournalExtra extra;
  for (const ModuleReport& report : record.modules) {
    const awq::Quantizer::Scales& scales = quantizer.scales(report.module);
    extra.tensors.push_back(floats(report.module + kInputs, scales.inputs));
    extra.tensors.push_back(floats(report.module + kOutputs, scales.outputs));
  }
  Json::Array steps, replaced;
  for (const AwqReport& step : record.steps) steps.push_back(json_of(step));
  for (const std::string& name : record.replaced) {
    extra.tensors.push_back({name, *quantizer.replacement(name)});
    replaced.emplace_back(name);
  }
  extra.json = Json::Object{{"steps", std::move(steps)}, {"replaced", std::move(replaced)}};
  journal.store(unit, record.modules, quantizer, &extra);
}

std::optional<AwqBlockRecord> load_awq_block(Journal& journal, std::int64_t unit, awq::Quantizer& quantizer,
                                             Exec& exec) {
  JournalExtra extra;
  auto finished = journal.load(unit, quantizer, exec, &extra);
  if (!finished) return std::nullopt;
  Parts parts(std::move(extra));
  AwqBlockRecord record;
  std::vector<awq::Quantizer::Scales> scales;
  for (const Journal::Finished& module : *finished) {
    const Shape& shape = module.report.shape;
    scales.push_back({parts.floats(module.report.module + kInputs, shape.at(1)),
                      parts.floats(module.report.module + kOutputs, shape.at(0))});
  }
  for (std::size_t i = 0; i < finished->size(); ++i) {
    Journal::Finished& module = (*finished)[i];
    quantizer.restore(module.report.module, std::move(module.solved), std::move(scales[i]));
    record.modules.push_back(std::move(module.report));
  }
  for (const std::string& name : parts.replaced) quantizer.replace(name, std::move(parts.at(name)));
  record.steps = std::move(parts.steps);
  record.replaced = std::move(parts.replaced);
  return record;
}

}  // namespace nibble
