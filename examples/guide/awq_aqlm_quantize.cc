// What the guide leaves to AutoAWQ and to AQLM's own code: a float model is quantized while it loads, and saved.
//   awq_aqlm_quantize [MODEL [FOLDER]]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

using nibble::AqlmConfig;
using nibble::AutoModelForCausalLM;
using nibble::AwqConfig;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "facebook/opt-125m";
  // A real data set has thousands of tokens: a file, or "builtin" for the small text that comes with nibble.
  std::vector<std::string> dataset{
      "Activation-aware weight quantization keeps the weights that matter most for what a model says."};

  auto awq_config = AwqConfig{.group_size = 64, .dataset = dataset};
  auto quantized_model = AutoModelForCausalLM::from_pretrained(model_id, {.quantization_config = awq_config});
  show(quantized_model);
  quantized_model.save_pretrained(argc > 2 ? argv[2] : "opt-125m-awq");

  auto aqlm_config = AqlmConfig{.nbits_per_codebook = 8, .dataset = dataset, .preset = "fast"};
  quantized_model = AutoModelForCausalLM::from_pretrained(model_id, {.quantization_config = aqlm_config});
  show(quantized_model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "awq_aqlm_quantize: " << error.what() << '\n';
  return error.exit_code();
}
