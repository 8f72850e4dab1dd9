// The guide's example of GPTQ on a CPU, where Transformers needs its ExLlama kernels switched off.
//   gptq_without_exllama [MODEL [FOLDER]]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, GPTQConfig
using nibble::AutoModelForCausalLM;
using nibble::GPTQConfig;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "{your_username}/opt-125m-gptq";
  // gptq_config = GPTQConfig(bits=4, use_exllama=False)
  auto gptq_config = GPTQConfig{.bits = 4, .use_exllama = false};
  // model = AutoModelForCausalLM.from_pretrained("{your_username}/opt-125m-gptq", device_map="cpu",
  //                                              quantization_config=gptq_config)
  auto model =
      AutoModelForCausalLM::from_pretrained(model_id, {.device_map = "cpu", .quantization_config = gptq_config});
  show(model);
  // "This overwrites the attributes related to the ExLlama kernels in the quantization config of the config.json file."
  if (argc > 2) model.save_pretrained(argv[2]);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "gptq_without_exllama: " << error.what() << '\n';
  return error.exit_code();
}
