#include "calib/module_report.h"

#include <cmath>

#include "base/error.h"
#include "base/process_memory.h"

namespace nibble {
namespace {

const Json& member(const Json& json, const char* key, const std::string& where) {
  const Json* found = json.find(key);
  if (found == nullptr) throw bad_input(where, ": no field \"", key, "\"");
  return *found;
}

}  // namespace

ModuleReport module_report_of(const std::string& module, const Shape& shape, std::int64_t tokens,
                              const SolvedModule& solved, double seconds) {
  return {.module = module,
          .shape = shape,
          .tokens = tokens,
          .loss = solved.loss,
          .damp = solved.damp,
          .dead = solved.dead,
          .rounded = solved.rounded,
          .seconds = seconds,
          .resident_bytes = resident_bytes()};
}

Json json_of(const ModuleReport& report) {
  Json::Array shape;
  for (const std::int64_t dim : report.shape) shape.emplace_back(dim);
  // JSON has no infinity; a loss that overflowed, or is not known, says so by being null.
  Json json = Json::Object{{"module", report.module},
                           {"shape", std::move(shape)},
                           {"tokens", report.tokens},
                           {"loss", std::isfinite(report.loss) ? Json(report.loss) : Json()},
                           {"damp", report.damp},
                           {"dead", report.dead},
                           {"rounded", report.rounded},
                           {"seconds", report.seconds},
                           {"rss_bytes", report.resident_bytes}};
  if (report.factors) {
    json.set("ratio", report.factors->ratio);
    json.set("plain_loss", report.factors->plain_loss);
  }
  return json;
}

ModuleReport module_report_of(const Json& json, const std::string& where) {
  ModuleReport report;
  report.module = member(json, "module", where).string(where);
  for (const Json& dim : member(json, "shape", where).array(where)) report.shape.push_back(dim.integer(where));
  report.tokens = member(json, "tokens", where).integer(where);
  const Json& loss = member(json, "loss", where);
  report.loss = loss.is_null() ? INFINITY : loss.number(where);
  report.damp = member(json, "damp", where).number(where);
  report.dead = member(json, "dead", where).integer(where);
  report.rounded = member(json, "rounded", where).boolean(where);
  report.seconds = member(json, "seconds", where).number(where);
  report.resident_bytes = member(json, "rss_bytes", where).integer(where);
  if (const Json* ratio = json.find("ratio")) {
    report.factors = FactorReport{ratio->number(where), member(json, "plain_loss", where).number(where)};
  }
  report.restored = true;
  return report;
}

}  // namespace nibble
