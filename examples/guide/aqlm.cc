// The guide's AQLM section: a checkpoint that the aqlm library wrote is loaded like any other.
//   aqlm [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM
using nibble::AutoModelForCausalLM;

int main(int argc, char** argv) try {
  // The guide names no model; this is one that its notebook loads.
  const std::string model_id = argc > 1 ? argv[1] : "ISTA-DASLab/Mixtral-8x7b-AQLM-2Bit-1x16-hf";
  // model = AutoModelForCausalLM.from_pretrained(model_id, torch_dtype="auto", device_map="auto")
  auto model = AutoModelForCausalLM::from_pretrained(model_id, {.torch_dtype = "auto", .device_map = "auto"});
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "aqlm: " << error.what() << '\n';
  return error.exit_code();
}
