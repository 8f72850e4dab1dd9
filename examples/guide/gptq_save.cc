// The guide's examples of sharing and saving a GPTQ model.
//   gptq_save [MODEL [FOLDER]]
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
  auto quantized_model =
      AutoModelForCausalLM::from_pretrained(model_id, {.device_map = "auto", .quantization_config = gptq_config});
  const std::string folder = argc > 2 ? argv[2] : "opt-125m-gptq";

  // "Use the push_to_hub method to save the GPTQConfig": nibble has no network and says what to run instead.
  // quantized_model.push_to_hub("opt-125m-gptq")
  // tokenizer.push_to_hub("opt-125m-gptq")
  try {
    quantized_model.push_to_hub("opt-125m-gptq");
  } catch (const nibble::Error& error) {
    std::cout << error.what() << '\n';
  }

  // quantized_model.save_pretrained("opt-125m-gptq")
  // tokenizer.save_pretrained("opt-125m-gptq")
  quantized_model.save_pretrained(folder);
  tokenizer.save_pretrained(folder);

  // # if quantized with device_map set
  // quantized_model.to("cpu")
  // quantized_model.save_pretrained("opt-125m-gptq")
  quantized_model.to("cpu");
  quantized_model.save_pretrained(folder);
  show(quantized_model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "gptq_save: " << error.what() << '\n';
  return error.exit_code();
}
