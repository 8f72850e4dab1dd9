// The guide's example of offloading.
//   bnb_offload [MODEL [llama]]      llama: MODEL has the names of a Llama
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, BitsAndBytesConfig
using nibble::AutoModelForCausalLM;
using nibble::BitsAndBytesConfig;
using nibble::DeviceMap;

int main(int argc, char** argv) try {
  // "8-bit models can offload weights between the CPU and GPU to support fitting very large models into memory. The
  // weights dispatched to the CPU are actually stored in float32, and aren't converted to 8-bit."
  // quantization_config = BitsAndBytesConfig(llm_int8_enable_fp32_cpu_offload=True)
  auto quantization_config = BitsAndBytesConfig{.llm_int8_enable_fp32_cpu_offload = true};

  // "Design a custom device map to fit everything on your GPU except for the lm_head, which you'll dispatch to the CPU"
  // device_map = {
  //     "transformer.word_embeddings": 0,
  //     "transformer.word_embeddings_layernorm": 0,
  //     "lm_head": "cpu",
  //     "transformer.h": 0,
  //     "transformer.ln_f": 0,
  // }
  DeviceMap device_map = {
      {"transformer.word_embeddings", 0},
      {"transformer.word_embeddings_layernorm", 0},
      {"lm_head", "cpu"},
      {"transformer.h", 0},
      {"transformer.ln_f", 0},
  };
  if (argc > 2) device_map = {{"model.embed_tokens", 0}, {"lm_head", "cpu"}, {"model.layers", 0}, {"model.norm", 0}};

  // model_8bit = AutoModelForCausalLM.from_pretrained(
  //     "bigscience/bloom-1b7",
  //     device_map=device_map,
  //     quantization_config=quantization_config,
  // )
  auto model_8bit = AutoModelForCausalLM::from_pretrained(argc > 1 ? argv[1] : "bigscience/bloom-1b7",
                                                          {
                                                              .device_map = device_map,
                                                              .quantization_config = quantization_config,
                                                          });
  std::cout << "lm_head: " << model_8bit.dtype_of("lm_head.weight") << '\n';
  show(model_8bit);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "bnb_offload: " << error.what() << '\n';
  return error.exit_code();
}
