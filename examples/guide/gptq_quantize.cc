// The guide's examples of loading a model to quantize with GPTQ, with and without max_memory.
//   gptq_quantize [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, AutoTokenizer, GPTQConfig
using nibble::AutoModelForCausalLM;
using nibble::AutoTokenizer;
using nibble::GPTQConfig;

int main(int argc, char** argv) try {
  // model_id = "facebook/opt-125m"
  const std::string model_id = argc > 1 ? argv[1] : "facebook/opt-125m";
  // tokenizer = AutoTokenizer.from_pretrained(model_id)
  auto tokenizer = AutoTokenizer::from_pretrained(model_id);
  // dataset = ["auto-gptq is an easy-to-use model quantization library with user-friendly apis, based on GPTQ
  // algorithm."]
  std::vector<std::string> dataset{
      "auto-gptq is an easy-to-use model quantization library with user-friendly apis, based on GPTQ algorithm."};
  // gptq_config = GPTQConfig(bits=4, dataset=dataset, tokenizer=tokenizer)
  auto gptq_config = GPTQConfig{.bits = 4, .dataset = dataset, .tokenizer = tokenizer};

  // "Set device_map="auto" to automatically offload the model to a CPU to help fit the model in memory, and allow the
  // model modules to be moved between the CPU and GPU for quantization."
  // quantized_model = AutoModelForCausalLM.from_pretrained(model_id, device_map="auto",
  //                                                        quantization_config=gptq_config)
  auto quantized_model =
      AutoModelForCausalLM::from_pretrained(model_id, {.device_map = "auto", .quantization_config = gptq_config});
  show(quantized_model);

  // "If you're running out of memory because a dataset is too large, disk offloading is not supported. If this is the
  // case, try passing the max_memory parameter to allocate the amount of memory to use on your device (GPU and CPU)"
  // quantized_model = AutoModelForCausalLM.from_pretrained(model_id, device_map="auto",
  //                                                        max_memory={0: "30GiB", 1: "46GiB", "cpu": "30GiB"},
  //                                                        quantization_config=gptq_config)
  quantized_model =
      AutoModelForCausalLM::from_pretrained(model_id, {.device_map = "auto",
                                                       .max_memory = {{0, "30GiB"}, {1, "46GiB"}, {"cpu", "30GiB"}},
                                                       .quantization_config = gptq_config});
  show(quantized_model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "gptq_quantize: " << error.what() << '\n';
  return error.exit_code();
}
