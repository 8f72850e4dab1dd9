// The bitsandbytes methods of the quantize command.
#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/quantize_flags.h"
#include "quant/bnb_quantizer.h"

namespace nibble::cli {

bool is_bnb(const std::string& method) { return method == "bnb-nf4" || method == "bnb-fp4" || method == "llm-int8"; }

std::string method_of(const QuantizeFlags& flags) {
  const BnbFlags& bnb = flags.bnb;
  if (bnb.load_in_4bit && bnb.load_in_8bit) throw bad_input("--load-in-4bit and --load-in-8bit exclude each other");
  if (!bnb.load_in_4bit && !bnb.load_in_8bit) return flags.method;
  const std::string meant = bnb.load_in_8bit ? "llm-int8" : "bnb-" + bnb.quant_type;
  if (flags.method != "quanto" && flags.method != meant) {
    throw bad_input("--method ", flags.method, ": another method (", meant, ") is asked for by --load-in-",
                    bnb.load_in_8bit ? "8bit" : "4bit");
  }
  return meant;
}

std::unique_ptr<ModuleQuantizer> bnb_quantizer(QuantizeFlags& flags) {
  const BnbFlags& bnb = flags.bnb;
  bnb::Config config;
  config.load_in_8bit = flags.method == "llm-int8";
  config.load_in_4bit = !config.load_in_8bit;
  if (config.load_in_4bit) config.quant_type = flags.method.substr(4);
  config.double_quant = config.load_in_4bit && bnb.double_quant;
  config.quant_storage = dtype_from_name(bnb.quant_storage).value_or(DType::u8);
  config.compute_dtype = dtype_from_name(bnb.compute_dtype).value_or(DType::f32);
  config.int8_threshold = static_cast<float>(bnb.threshold);
  if (!bnb.skip_modules.empty()) config.skip = quant::NamePatterns(bnb.skip_modules, "--skip-modules");
  ModuleSelection chosen = selection_of(config);
  flags.selection.matrices_only = chosen.matrices_only;
  flags.selection.skip = std::move(chosen.skip);
  return make_bnb_quantizer(config, bnb.block, bnb.search_absmax);
}

void add_bnb_flags(CLI::App& command, BnbFlags& flags) {
  const char* const group = "bitsandbytes (bnb-nf4, bnb-fp4, llm-int8)";
  const auto option = [&](const char* name, auto& value, const char* text) {
    return command.add_option(name, value, text)->group(group);
  };
  command
      .add_flag("--double-quant,--bnb-4bit-use-double-quant", flags.double_quant,
                "Quantize the scales too: 4.127 instead of 4.5 bits per weight")
      ->group(group);
  command
      .add_flag("--search-absmax", flags.search_absmax,
                "Scales that minimize each block's squared error: more exact than the library, not its bytes")
      ->group(group);
  option("--blocksize", flags.block, "Weights per 4-bit scale; Transformers loads 64 only")
      ->check(CLI::IsMember({32, 64, 128, 256, 512, 1024, 2048, 4096}))
      ->capture_default_str();
  option("--threshold,--llm-int8-threshold", flags.threshold,
         "LLM.int8: inputs of at least this magnitude stay in floating point; 0: none do")
      ->check(CLI::Range(0.0, 65504.0))
      ->capture_default_str();
  option("--skip-modules,--llm-int8-skip-modules", flags.skip_modules,
         "Modules that stay in floats, as Transformers reads the list: it replaces the default (lm_head)")
      ->delimiter(',');
  option("--compute-dtype,--bnb-4bit-compute-dtype", flags.compute_dtype,
         "What config.json tells Transformers to compute in")
      ->check(CLI::IsMember({"float32", "float16", "bfloat16"}))
      ->capture_default_str();
  option("--quant-storage,--bnb-4bit-quant-storage", flags.quant_storage, "Type of the tensors that hold 4-bit codes")
      ->check(CLI::IsMember({"uint8", "int8"}))
      ->capture_default_str();
  command.add_flag("--load-in-4bit", flags.load_in_4bit, "As --method bnb-fp4 (see --bnb-4bit-quant-type)")
      ->group(group);
  command.add_flag("--load-in-8bit", flags.load_in_8bit, "As --method llm-int8")->group(group);
  option("--bnb-4bit-quant-type", flags.quant_type, "With --load-in-4bit")
      ->check(CLI::IsMember({"fp4", "nf4"}))
      ->capture_default_str();
}

}  // namespace nibble::cli
