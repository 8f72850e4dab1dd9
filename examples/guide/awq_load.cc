// The guide's first AWQ example: "A quantized model is loaded with the from_pretrained method".
//   awq_load [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, AutoTokenizer
using nibble::AutoModelForCausalLM;

int main(int argc, char** argv) try {
  // model_id = "TheBloke/zephyr-7B-alpha-AWQ"
  const std::string model_id = argc > 1 ? argv[1] : "TheBloke/zephyr-7B-alpha-AWQ";
  // "If you loaded your model on the CPU, make sure to move it to a GPU device first. Use the device_map parameter to
  // specify where to place the model": here there is one place, the machine's memory.
  // model = AutoModelForCausalLM.from_pretrained(model_id, device_map="cuda:0")
  auto model = AutoModelForCausalLM::from_pretrained(model_id, {.device_map = "cpu"});
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "awq_load: " << error.what() << '\n';
  return error.exit_code();
}
