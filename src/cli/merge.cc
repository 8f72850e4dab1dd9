// nibble merge: a base and its LoRA adapters in, one checkpoint out, and what merging cost.
#include <CLI/CLI.hpp>

#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/stopwatch.h"
#include "calib/dataset.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress_bar.h"
#include "cli/table.h"
#include "quant/quantize_checkpoint.h"
#include "quant/requantize.h"
#include "run/adapter/merge.h"

namespace nibble::cli {
namespace {

namespace fs = std::filesystem;
constexpr std::int64_t kOwnTexts = 4;

struct Flags {
  std::string model, out, dtype = "auto", text, max_shard_size = "5GB";
  std::vector<std::string> lora;
  std::int64_t tokens = 512, samples = 16, seqlen = 256;
  bool requantize = false, force = false, json = false;
  ComputeFlags compute;
};

/// The float checkpoint that requantizing starts from; gone with the object.
class ScratchFolder {
 public:
  explicit ScratchFolder(fs::path path) : path_(std::move(path)) {}
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

struct Merged {
  MergeResult floats;
  std::string form;  ///< of the result's weights
  std::optional<QuantizationError> error;
  std::optional<PerplexityResult> cost;
  std::string text;  ///< that the cost was measured on
  double seconds = 0;
};

MergeResult merge_and_requantize(const Flags& flags, const AdaptedBase& adapted, const MergeOptions& options,
                                 Exec& exec, Merged& merged) {
  const WeightStore store(adapted.base);
  Requantizer again = make_requantizer(store);
  check_output_folder(adapted.base->folder(), options.out, flags.force);
  const ScratchFolder scratch(flags.out + ".floats.partial");
  MergeOptions floats = options;
  floats.out = scratch.path();
  floats.force = true;
  ProgressBar bar;
  const MergeResult result = write_merged(adapted, floats, exec, bar.callback());
  const std::shared_ptr<const Checkpoint> source = Checkpoint::open(scratch.path().string());
  const QuantizationPlan plan = plan_quantization(*source, *again.quantizer, again.selection, exec.pool.size());
  const QuantizeOptions writing{.out = options.out, .max_shard_bytes = options.max_shard_bytes, .force = options.force};
  merged.error = quantize_checkpoint(*source, plan, *again.quantizer, writing, exec.pool, bar.callback());
  return result;
}

/// Both models in f32, whatever the checkpoints' dtype: the cost is that of the weights alone.
void measure_cost(const Flags& flags, const AdaptedBase& adapted, Exec& exec, Merged& merged) {
  std::vector<std::vector<std::int32_t>> sequences;
  if (!flags.text.empty()) {
    sequences = read_dataset(flags.text, adapted.base->folder(), {.samples = flags.samples, .seqlen = flags.seqlen});
    merged.text = flags.text;
  } else if (flags.tokens >= 2 * kOwnTexts) {
    sequences = own_text(*adapted.model, *adapted.base, kOwnTexts, flags.tokens / kOwnTexts, exec);
    merged.text = "text that base and adapter write themselves";
  } else {
    return;
  }
  const std::shared_ptr<const Checkpoint> written = Checkpoint::open(flags.out);
  merged.form = weights_text(written);
  const std::unique_ptr<Model> model = Model::load(written, {}, exec);
  merged.cost = measure_divergence({*model, exec}, {*adapted.model, exec}, sequences);
}

std::string plural(std::int64_t count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

void print_adapters(const Flags& flags, std::span<const AdapterUse> uses) {
  for (std::size_t i = 0; i < uses.size(); ++i) {
    const Adapter& adapter = *uses[i].adapter;
    std::cout << "adapter   " << printable(flags.lora[i]) << ": r " << adapter.config().r << ", alpha "
              << adapter.config().lora_alpha << (adapter.config().use_dora ? ", DoRA" : "") << "; "
              << plural(static_cast<std::int64_t>(adapter.modules().size()), "changed module") << ", "
              << plural(static_cast<std::int64_t>(adapter.replacements().size()), "whole tensor") << '\n';
  }
}

void print_merged(const Flags& flags, const Merged& merged) {
  std::cout << "merged    " << plural(merged.floats.changed, "weight") << " changed, "
            << plural(merged.floats.replaced, "tensor") << " replaced, " << plural(merged.floats.dequantized, "weight")
            << " dequantized\n";
  if (merged.floats.unties) std::cout << "note      the output head got a weight of its own (it was tied)\n";
  if (merged.error) {
    std::cout << "error     " << fixed(100 * merged.error->relative(), 3)
              << " % of the weights' norm by quantizing again, at most " << fixed(merged.error->largest, 6) << '\n';
  }
  std::cout << "written   " << flags.out << " in " << fixed(merged.seconds, 2) << " s\n";
  if (!merged.cost || !merged.cost->divergence) return;
  const Divergence& d = *merged.cost->divergence;
  std::cout << "cost      against base and adapter at run time, f32, " << merged.cost->scored << " tokens of "
            << merged.text << ":\n"
            << "          Mean KLD       " << d.kl.value << " +/- " << d.kl.error << '\n'
            << "          Maximum KLD    " << d.kl_max << '\n'
            << "          Same top token " << fixed(100 * d.same_top.value, 3) << " +/- "
            << fixed(100 * d.same_top.error, 3) << " %\n"
            << "          PPL            " << fixed(d.base_ppl, 4) << " -> " << fixed(merged.cost->ppl.value, 4)
            << '\n';
}

Json json_of(const Flags& flags, const Merged& merged) {
  Json::Array lora;
  for (const std::string& name : flags.lora) lora.emplace_back(name);
  Json::Object out{{"model", flags.model},
                   {"lora", std::move(lora)},
                   {"out", flags.out},
                   {"requantized", flags.requantize},
                   {"changed", merged.floats.changed},
                   {"replaced", merged.floats.replaced},
                   {"dequantized", merged.floats.dequantized},
                   {"untied", merged.floats.unties},
                   {"relative_error", merged.error ? Json(merged.error->relative()) : Json()},
                   {"seconds", merged.seconds}};
  if (!merged.cost || !merged.cost->divergence) {
    out.insert(out.end(), {{"kl", Json()}, {"same_top", Json()}});
    return out;
  }
  const Divergence& d = *merged.cost->divergence;
  out.insert(out.end(), {{"text", merged.text},
                         {"weights", merged.form},
                         {"tokens", merged.cost->scored},
                         {"kl", d.kl.value},
                         {"kl_stderr", d.kl.error},
                         {"kl_max", d.kl_max},
                         {"same_top", d.same_top.value},
                         {"ppl_adapter", d.base_ppl},
                         {"ppl", merged.cost->ppl.value}});
  return out;
}

void run_merge(const Flags& flags) {
  Compute compute(flags.compute);
  Exec& exec = compute.exec();
  exec.compute = DType::f32;
  MergeOptions options;
  options.out = flags.out;
  options.force = flags.force;
  options.max_shard_bytes = parse_byte_size(flags.max_shard_size);
  if (flags.dtype != "auto") options.dtype = dtype_from_name(flags.dtype);
  const std::vector<AdapterUse> uses = open_adapters(flags.lora);
  const std::shared_ptr<const Checkpoint> base = Checkpoint::open(flags.model);
  check_output_folder(base->folder(), flags.out, flags.force);
  const AdaptedBase adapted = open_adapted(base, uses, {}, exec);
  if (!flags.json) {
    std::cout << "base      " << flags.model << " (" << adapted.model->info().architecture << ", " << weights_text(base)
              << ")\n";
    print_adapters(flags, uses);
  }
  Merged merged;
  const Stopwatch watch;
  if (flags.requantize) {
    merged.floats = merge_and_requantize(flags, adapted, options, exec, merged);
  } else {
    ProgressBar bar;
    merged.floats = write_merged(adapted, options, exec, bar.callback());
  }
  merged.seconds = watch.seconds();
  measure_cost(flags, adapted, exec, merged);
  if (flags.json) {
    print_json(json_of(flags, merged));
  } else {
    print_merged(flags, merged);
  }
}

}  // namespace

void add_merge(CLI::App& app) {
  CLI::App* command = app.add_subcommand("merge", "Merge LoRA adapters into their base model");
  const auto flags = std::make_shared<Flags>();
  command->add_option("model,-m,--model", flags->model, "The base: folder, file, or org/name[@revision]")->required();
  add_lora_flag(*command, flags->lora)->required();
  command->add_option("-o,--out", flags->out, "Folder to write")->required();
  command->add_option("--dtype", flags->dtype, "Float tensors of the result; auto: as in the base and its config")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f16"}))
      ->capture_default_str();
  command->add_flag("--requantize", flags->requantize,
                    "Quantize again as the base was, instead of leaving floats (Quanto, bitsandbytes)");
  command->add_option("-f,--file", flags->text,
                      "Measure the cost on this text: .txt, .jsonl with a field \"text\", or .json {\"ids\": [[...]]}");
  command->add_option("--samples", flags->samples, "Sequences of that text, at most")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--seqlen", flags->seqlen, "Tokens per sequence, at most")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  command
      ->add_option("--tokens", flags->tokens,
                   "Without -f: tokens that base and adapter write themselves to be measured on; 0: do not measure")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command->add_option("--max-shard-size", flags->max_shard_size, "Largest file")->capture_default_str();
  command->add_flag("--force", flags->force, "Replace the model that is in OUT");
  command->add_flag("--json", flags->json, "Print one JSON object");
  add_compute_flags(*command, flags->compute);
  command->footer(
      "Weights of a quantized base are decoded: the result is a float model. --requantize quantizes its weights again\n"
      "with the base's settings, which loses more than the first quantization did. Either way the Kullback-Leibler\n"
      "divergence from base and adapter at run time is measured and printed.\n"
      "Examples:\n"
      "  nibble merge org/base --lora ./adapter -o out/merged\n"
      "  nibble merge org/base-int4 --lora ./adapter=0.8 --lora org/other -o out/merged --requantize -f eval.txt");
  command->callback([flags] { run_merge(*flags); });
}

}  // namespace nibble::cli
