// The guide's example of ExLlamaV2 kernels for GPTQ.
//   gptq_exllama [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, GPTQConfig
using nibble::AutoModelForCausalLM;
using nibble::ExllamaConfig;
using nibble::GPTQConfig;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "{your_username}/opt-125m-gptq";
  // "To boost inference speed even further, use the ExLlamaV2 kernels by configuring the exllama_config parameter":
  // accepted here, and not needed.
  // gptq_config = GPTQConfig(bits=4, exllama_config={"version":2})
  auto gptq_config = GPTQConfig{.bits = 4, .exllama_config = ExllamaConfig{.version = 2}};
  // model = AutoModelForCausalLM.from_pretrained("{your_username}/opt-125m-gptq", device_map="auto",
  //                                              quantization_config=gptq_config)
  auto model =
      AutoModelForCausalLM::from_pretrained(model_id, {.device_map = "auto", .quantization_config = gptq_config});
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "gptq_exllama: " << error.what() << '\n';
  return error.exit_code();
}
