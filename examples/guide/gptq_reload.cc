// The guide's example of reloading a GPTQ model.
//   gptq_reload [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM
using nibble::AutoModelForCausalLM;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "{your_username}/opt-125m-gptq";
  // model = AutoModelForCausalLM.from_pretrained("{your_username}/opt-125m-gptq", device_map="auto")
  auto model = AutoModelForCausalLM::from_pretrained(model_id, {.device_map = "auto"});
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "gptq_reload: " << error.what() << '\n';
  return error.exit_code();
}
