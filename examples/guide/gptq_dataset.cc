// The guide's first GPTQ examples: a config that names its data set, and one that brings its own texts.
//   gptq_dataset [MODEL [DATASET]]
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
  // gptq_config = GPTQConfig(bits=4, dataset="c4", tokenizer=tokenizer)
  // nibble has no network: the name of a data set is the name of a file with its text.
  const std::string name = argc > 2 ? argv[2] : "c4";
  auto gptq_config = GPTQConfig{.bits = 4, .dataset = name, .tokenizer = tokenizer};

  // "You could also pass your own dataset as a list of strings, but it is highly recommended to use the same dataset
  // from the GPTQ paper."
  // dataset = ["auto-gptq is an easy-to-use model quantization library with user-friendly apis, based on GPTQ
  // algorithm."]
  std::vector<std::string> dataset{
      "auto-gptq is an easy-to-use model quantization library with user-friendly apis, based on GPTQ algorithm."};
  // gptq_config = GPTQConfig(bits=4, dataset=dataset, tokenizer=tokenizer)
  auto own_texts = GPTQConfig{.bits = 4, .dataset = dataset, .tokenizer = tokenizer};

  for (const GPTQConfig& config : {gptq_config, own_texts}) {
    auto quantized_model = AutoModelForCausalLM::from_pretrained(model_id, {.quantization_config = config});
    show(quantized_model);
  }
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "gptq_dataset: " << error.what() << '\n';
  return error.exit_code();
}
