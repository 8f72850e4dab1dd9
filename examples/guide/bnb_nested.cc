// The guide's example of nested quantization.
//   bnb_nested [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, BitsAndBytesConfig
using nibble::AutoModelForCausalLM;
using nibble::BitsAndBytesConfig;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "meta-llama/Llama-2-13b";
  // "This feature performs a second quantization of the already quantized weights to save an addition 0.4
  // bits/parameter."
  // double_quant_config = BitsAndBytesConfig(
  //     load_in_4bit=True,
  //     bnb_4bit_use_double_quant=True,
  // )
  auto double_quant_config = BitsAndBytesConfig{
      .load_in_4bit = true,
      .bnb_4bit_use_double_quant = true,
  };

  // model_double_quant = AutoModelForCausalLM.from_pretrained(model_id, quantization_config=double_quant_config)
  auto model_double_quant =
      AutoModelForCausalLM::from_pretrained(model_id, {.quantization_config = double_quant_config});
  show(model_double_quant);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "bnb_nested: " << error.what() << '\n';
  return error.exit_code();
}
