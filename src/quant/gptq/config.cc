#include "quant/gptq/config.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"

namespace nibble::gptq {
namespace {

std::int32_t checked_bits(std::int64_t bits, const std::string& where) {
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
    throw bad_input(where, ": ", bits, " bits (GPTQ has 2, 3, 4 or 8)");
  }
  return static_cast<std::int32_t>(bits);
}

std::int64_t checked_group(std::int64_t group, const std::string& where) {
  if (group != -1 && group < 1) throw bad_input(where, ": ", group, " (a positive number of inputs, or -1 for all)");
  return group;
}

/// Where the value of `keys` came from; it must be there.
std::string place(const QuantConfig& files, Keys keys) { return files.find(keys)->where; }

ModuleSpec base_spec(const QuantConfig& files) {
  constexpr std::string_view bits[] = {"bits", "w_bit"}, group[] = {"group_size", "q_group_size"};
  const Keys bits_keys{bits[0], bits[1]}, group_keys{group[0], group[1]};
  ModuleSpec spec;
  const std::optional<std::int64_t> stated = files.integer(bits_keys);
  if (!stated) throw bad_input(files.sources().front().where, ": bits is missing");
  spec.bits = checked_bits(*stated, place(files, bits_keys));
  if (const auto value = files.integer(group_keys)) spec.group = checked_group(*value, place(files, group_keys));
  spec.sym = files.boolean({"sym"}).value_or(true);
  spec.desc_act = files.boolean({"desc_act"}).value_or(false);
  return spec;
}

ModuleSpec overridden(ModuleSpec spec, const Json& keys, const std::string& where) {
  if (const Json* bits = keys.get("bits")) {
    spec.bits = checked_bits(bits->integer(where + ": bits"), where + ": bits");
  }
  if (const Json* group = keys.get("group_size")) {
    spec.group = checked_group(group->integer(where + ": group_size"), where + ": group_size");
  }
  if (const Json* sym = keys.get("sym")) spec.sym = sym->boolean(where + ": sym");
  if (const Json* desc_act = keys.get("desc_act")) spec.desc_act = desc_act->boolean(where + ": desc_act");
  return spec;
}

std::vector<Rule> rules_of(const QuantConfig& files, const ModuleSpec& base) {
  std::vector<Rule> rules;
  const auto found = files.find({"dynamic"});
  if (!found || (found->value->is_bool() && !found->value->boolean(found->where))) return rules;
  for (const auto& [key, value] : found->value->object(found->where)) {
    const std::string where = cat(found->where, ": \"", printable(key), "\"");
    const std::string prefix = key.substr(0, 2);
    const bool marked = prefix == "-:" || prefix == "+:";
    Rule rule{Pattern(marked ? key.substr(2) : key, found->where), prefix != "-:", base};
    if (rule.quantized) {
      if (!value.is_object()) throw bad_input(where, ": not an object of overrides");
      rule.spec = overridden(base, value, where);
    }
    rules.push_back(std::move(rule));
  }
  // GPTQModel does so whenever it makes a config, also from a file.
  std::stable_partition(rules.begin(), rules.end(), [](const Rule& rule) { return !rule.quantized; });
  return rules;
}

/// "checkpoint_format in quantize_config.json".
std::string short_place(const std::string& key, const QuantConfig::Source& source) {
  const std::size_t colon = source.where.rfind("config.json: ");
  const std::string file = colon == std::string::npos ? source.where : source.where.substr(0, colon + 11);
  return cat(key, " in ", std::filesystem::path(file).filename().string());
}

/// The zero points' version: the first file that names one counts; optimum is known to write another into config.json
/// than into quantize_config.json.
void read_format(const QuantConfig& files, Config& config) {
  for (const QuantConfig::Source& source : files.sources()) {
    for (const char* key : {"checkpoint_format", "format"}) {
      const Json* value = source.json.get(key);
      if (value == nullptr) continue;
      const std::string format = lower_case(value->string(cat(source.where, ": ", key)));
      if (format != "gptq" && format != "gptq_v2") {
        throw bad_input(source.where, ": ", key, ": ", printable(format, 40),
                        " is not supported (gptq and gptq_v2 are)");
      }
      const Zeros zeros = format == "gptq" ? Zeros::v1 : Zeros::v2;
      if (!config.zeros) {
        config.zeros = zeros;
        config.zeros_from = short_place(key, source);
      } else if (config.zeros != zeros) {
        config.notes.push_back(
            cat(short_place(key, source), " says ", format, ", ", config.zeros_from,
                " says otherwise: the zero points decide where they are symmetric, else the latter"));
      }
    }
  }
}

void refuse_other_formats(const QuantConfig& files) {
  if (files.boolean({"is_marlin_format"}).value_or(false)) {
    throw bad_input(place(files, {"is_marlin_format"}),
                    ": Marlin's tile order is not supported (gptq and gptq_v2 are)");
  }
  if (const auto dtype = files.text({"pack_dtype"}); dtype && *dtype != "int32") {
    throw bad_input(place(files, {"pack_dtype"}), ": ", printable(*dtype, 40), " is not supported (int32 is)");
  }
}

void note_switches(const QuantConfig& files, Config& config) {
  std::string names;
  for (const char* key : {"use_exllama", "disable_exllama", "exllama_config", "use_cuda_fp16"}) {
    if (files.find({key})) names += names.empty() ? key : cat(", ", key);
  }
  for (const char* key :
       {"use_exllama", "disable_exllama", "use_cuda_fp16", "static_groups", "true_sequential", "lm_head"}) {
    files.boolean({key});
  }
  if (const auto exllama = files.find({"exllama_config"})) exllama->value->object(exllama->where);
  if (!names.empty())
    config.notes.push_back(names + ": accepted; nibble has one path for every variant and needs no switch");
}

}  // namespace

std::optional<ModuleSpec> Config::of(std::string_view module) const {
  for (const Rule& rule : rules) {
    if (!rule.pattern.matches_start(module)) continue;
    if (!rule.quantized) return std::nullopt;
    return rule.spec;
  }
  return base;
}

Config parse(const QuantConfig& files) {
  check(!files.sources().empty(), "gptq::parse: no config");
  Config config;
  refuse_other_formats(files);
  config.base = base_spec(files);
  config.rules = rules_of(files, config.base);
  read_format(files, config);
  note_switches(files, config);
  return config;
}

}  // namespace nibble::gptq
