// The guide's example of NF4.
//   bnb_nf4 [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, BitsAndBytesConfig
using nibble::AutoModelForCausalLM;
using nibble::BitsAndBytesConfig;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "facebook/opt-350m";
  // "NF4 is a 4-bit data type from the QLoRA paper, adapted for weights initialized from a normal distribution. You
  // should use NF4 for training 4-bit base models."
  // nf4_config = BitsAndBytesConfig(
  //     load_in_4bit=True,
  //     bnb_4bit_quant_type="nf4",
  // )
  auto nf4_config = BitsAndBytesConfig{
      .load_in_4bit = true,
      .bnb_4bit_quant_type = "nf4",
  };

  // model_nf4 = AutoModelForCausalLM.from_pretrained(model_id, quantization_config=nf4_config)
  auto model_nf4 = AutoModelForCausalLM::from_pretrained(model_id, {.quantization_config = nf4_config});
  show(model_nf4);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "bnb_nf4: " << error.what() << '\n';
  return error.exit_code();
}
