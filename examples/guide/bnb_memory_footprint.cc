// The guide's example of get_memory_footprint.
//   bnb_memory_footprint [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM
using nibble::AutoModelForCausalLM;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "{your_username}/bloom-560m-8bit";
  auto model = AutoModelForCausalLM::from_pretrained(model_id);
  // print(model.get_memory_footprint())
  std::cout << model.get_memory_footprint() << '\n';
  // The number that Transformers prints for the same model leaves out bitsandbytes' scales.
  std::cout << model.get_memory_footprint(/*as_transformers=*/true) << '\n';
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "bnb_memory_footprint: " << error.what() << '\n';
  return error.exit_code();
}
