// The guide's AWQ example of torch_dtype.
//   awq_torch_dtype [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, AutoTokenizer
using nibble::AutoModelForCausalLM;

int main(int argc, char** argv) try {
  // model_id = "TheBloke/zephyr-7B-alpha-AWQ"
  const std::string model_id = argc > 1 ? argv[1] : "TheBloke/zephyr-7B-alpha-AWQ";
  // "Loading an AWQ-quantized model automatically sets other weights to fp16 by default for performance reasons. If you
  // want to load these other weights in a different format, use the torch_dtype parameter"
  // model = AutoModelForCausalLM.from_pretrained(model_id, torch_dtype=torch.float32)
  auto model = AutoModelForCausalLM::from_pretrained(model_id, {.torch_dtype = "float32"});
  std::cout << "model.norm.weight: " << model.dtype_of("model.norm.weight") << '\n';
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "awq_torch_dtype: " << error.what() << '\n';
  return error.exit_code();
}
