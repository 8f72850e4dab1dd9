// nibble convert: a quantized checkpoint in, the same weights in another form of the format or as floats out.
#include <CLI/CLI.hpp>

#include <iostream>
#include <map>
#include <memory>

#include "base/error.h"
#include "checkpoint/writer.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress_bar.h"
#include "cli/rotate.h"
#include "cli/table.h"
#include "models/arch.h"
#include "models/decoder.h"
#include "quant/convert_checkpoint.h"
#include "quant/quantize_checkpoint.h"

namespace nibble::cli {
namespace {

struct Flags {
  std::string model, out, to = "same", max_shard_size = "5GB";
  bool force = false, json = false;
  RotateFlags rotation;
  ComputeFlags compute;
};

const models::ArchSpec* arch_of(const Checkpoint& checkpoint) {
  const Json* list = checkpoint.config().get("architectures");
  if (list == nullptr || !list->is_array() || list->array("").empty() || !list->array("")[0].is_string())
    return nullptr;
  return models::find_arch(list->array("")[0].string(""));
}

/// Sizes of all linears by the model's config. Quanto's groups of codes do not tell them; other formats do.
std::map<std::string, LinearSize> sizes_of(const std::shared_ptr<const Checkpoint>& source, Exec& exec) {
  std::map<std::string, LinearSize> sizes;
  const WeightStore store(source);
  if (store.scheme() == nullptr || store.scheme()->name != "quanto") return sizes;
  models::build_decoder(store, exec).each_linear([&](const nn::Linear& linear) {
    sizes[linear.name] = {linear.weight.rows, linear.weight.cols};
  });
  return sizes;
}

void print_report(const Flags& flags, const ConvertReport& report) {
  std::cout << "model     " << flags.model << ": " << (report.scheme.empty() ? "plain floats" : report.scheme) << ", "
            << report.modules << " quantized modules\n"
            << "written   " << flags.out << " as " << report.to << ", " << report.tensors << " tensors ("
            << report.same_tensors << " with the bytes of the source), "
            << byte_text(static_cast<double>(report.bytes_in)) << " -> "
            << byte_text(static_cast<double>(report.bytes_out)) << '\n'
            << "checked   read back: every tensor, and " << report.values << " decoded values; " << report.changed
            << " differ from the source's";
  if (report.changed != 0) std::cout << ", by at most " << report.largest_change;
  std::cout << '\n';
}

Json json_of(const Flags& flags, const ConvertReport& report) {
  return Json::Object{{"model", flags.model},
                      {"out", flags.out},
                      {"scheme", report.scheme.empty() ? Json() : Json(report.scheme)},
                      {"to", report.to},
                      {"modules", report.modules},
                      {"tensors", report.tensors},
                      {"same_tensors", report.same_tensors},
                      {"bytes", report.bytes_in},
                      {"new_bytes", report.bytes_out},
                      {"values", report.values},
                      {"changed_values", report.changed},
                      {"largest_change", report.largest_change}};
}

/// The model that is written; with --rotate rounded once, to the type that it is written in.
std::shared_ptr<const Checkpoint> source_of(const Flags& flags, Exec& exec) {
  std::shared_ptr<const Checkpoint> source = Checkpoint::open(flags.model);
  if (!flags.rotation.rotate) return source;
  const Rotation rotation(source, exec);
  check_output_folder(source->folder(), flags.out, flags.force);
  for (const std::string& note : rotation.notes()) {
    if (!flags.json) std::cout << "note      " << note << '\n';
  }
  return rotated(rotation, flags.rotation, flags.out, dtype_from_name(flags.to), exec);
}

void run_convert(const Flags& flags) {
  Compute compute(flags.compute);
  const std::shared_ptr<const Checkpoint> source = source_of(flags, compute.exec());
  ConvertOptions options;
  options.out = flags.out;
  options.to = flags.to;
  options.force = flags.force;
  options.max_shard_bytes = parse_byte_size(flags.max_shard_size);
  const models::ArchSpec* arch = arch_of(*source);
  if (arch != nullptr && arch->transposed)
    options.transposed = [](const std::string& module) { return module != "lm_head"; };
  const std::map<std::string, LinearSize> sizes = sizes_of(source, compute.exec());
  if (!sizes.empty()) {
    options.size_of = [&sizes](const std::string& module) {
      const auto found = sizes.find(module);
      return found == sizes.end() ? LinearSize{} : found->second;
    };
  }
  ProgressBar bar;
  const ConvertReport report = convert_checkpoint(source, options, compute.exec(), bar.callback());
  bar.clear();
  if (flags.json) {
    print_json(json_of(flags, report));
  } else {
    print_report(flags, report);
  }
}

}  // namespace

void add_convert(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("convert", "Rewrite a quantized checkpoint: same format, a variant, or floats");
  const auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, "Folder, file, or org/name[@revision] in the Hugging Face cache")
      ->required();
  command->add_option("-o,--out", flags->out, "Folder to write")->required();
  command
      ->add_option("--to", flags->to,
                   "same; bf16, f16, f32: plain floats; gptq, gptq_v2; gemm, gemv, gemv_fast, llm-awq")
      ->capture_default_str();
  add_rotate_flags(*command, flags->rotation);
  command->add_option("--max-shard-size", flags->max_shard_size, "Largest file")->capture_default_str();
  command->add_flag("--force", flags->force, "Replace the model that is in OUT");
  command->add_flag("--json", flags->json, "Print one JSON object");
  add_compute_flags(*command, flags->compute);
  command->footer(
      "The result is read back and compared with the source, tensor by tensor and value by value, before success is\n"
      "reported. Quantized weights keep their bits in every form but floats (rounded) and gemv_fast / llm-awq (which\n"
      "store scale * zero point in float16). Files are always safetensors.\n"
      "Examples:\n"
      "  nibble convert org/name-GPTQ -o out/plain --to bf16\n"
      "  nibble convert org/name-GPTQ -o out/v2 --to gptq_v2\n"
      "  nibble convert org/name-AWQ -o out/gemv --to gemv\n"
      "  nibble convert org/name -o out/rotated --rotate --to f32\n"
      "  nibble convert old-model.pt -o out/safetensors");
  command->callback([flags] { run_convert(*flags); });
}

}  // namespace nibble::cli
