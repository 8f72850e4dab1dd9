// The guide's first 4-bit example of bitsandbytes.
//   bnb_4bit [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM
using nibble::AutoModelForCausalLM;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "bigscience/bloom-1b7";
  // "Quantizing a model in 4-bit reduces your memory-usage by 4x, and for large models, set device_map="auto" to
  // efficiently use the GPUs available" model_4bit = AutoModelForCausalLM.from_pretrained("bigscience/bloom-1b7",
  // device_map="auto", load_in_4bit=True)
  auto model_4bit = AutoModelForCausalLM::from_pretrained(model_id, {.device_map = "auto", .load_in_4bit = true});
  show(model_4bit);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "bnb_4bit: " << error.what() << '\n';
  return error.exit_code();
}
