// The guide's example of reloading a bitsandbytes model.
//   bnb_reload [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, AutoTokenizer
using nibble::AutoModelForCausalLM;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "{your_username}/bloom-560m-8bit";
  // "Quantized models can be loaded from the from_pretrained method without needing to specify the load_in_8bit or
  // load_in_4bit parameters"
  // model = AutoModelForCausalLM.from_pretrained("{your_username}/bloom-560m-8bit", device_map="auto")
  auto model = AutoModelForCausalLM::from_pretrained(model_id, {.device_map = "auto"});
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "bnb_reload: " << error.what() << '\n';
  return error.exit_code();
}
