// The guide's example of the compute data type.
//   bnb_compute_dtype [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, BitsAndBytesConfig
using nibble::AutoModelForCausalLM;
using nibble::BitsAndBytesConfig;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "facebook/opt-350m";
  // "To speedup computation, you can change the data type from float32 (the default value) to bf16 using the
  // bnb_4bit_compute_dtype parameter"
  // quantization_config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
  auto quantization_config = BitsAndBytesConfig{.load_in_4bit = true, .bnb_4bit_compute_dtype = "bfloat16"};

  // model = AutoModelForCausalLM.from_pretrained(model_id, quantization_config=quantization_config)
  auto model = AutoModelForCausalLM::from_pretrained(model_id, {.quantization_config = quantization_config});
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "bnb_compute_dtype: " << error.what() << '\n';
  return error.exit_code();
}
