// The guide's example of ExLlama-v2 kernels for AWQ.
//   awq_exllama [MODEL]
#include <nibble/nibble.h>

#include <iostream>
#include <random>

#include "show.h"

// from transformers import AutoModelForCausalLM, AutoTokenizer, AwqConfig
using nibble::AutoModelForCausalLM;
using nibble::AutoTokenizer;
using nibble::AwqConfig;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "TheBloke/Mistral-7B-Instruct-v0.1-AWQ";
  // quantization_config = AwqConfig(version="exllama")
  auto quantization_config = AwqConfig{.version = "exllama"};

  // model = AutoModelForCausalLM.from_pretrained(
  //     "TheBloke/Mistral-7B-Instruct-v0.1-AWQ",
  //     quantization_config=quantization_config,
  //     device_map="auto",
  // )
  auto model = AutoModelForCausalLM::from_pretrained(
      model_id, {.device_map = "auto", .quantization_config = quantization_config});

  // input_ids = torch.randint(0, 100, (1, 128), dtype=torch.long, device="cuda")
  std::mt19937 random(0);
  nibble::TokenIds random_ids(128);
  for (auto& id : random_ids) id = std::uniform_int_distribution<std::int32_t>(0, 99)(random);
  // output = model(input_ids)
  auto logits = model.logits(random_ids);
  // print(output.logits)
  std::cout << "logits [" << random_ids.size() << ", " << model.vocab_size() << "]: " << logits.at(0) << ", "
            << logits.at(1) << ", ..., " << logits.back() << '\n';

  // tokenizer = AutoTokenizer.from_pretrained("TheBloke/Mistral-7B-Instruct-v0.1-AWQ")
  auto tokenizer = AutoTokenizer::from_pretrained(model_id);
  // input_ids = tokenizer.encode("How to make a cake", return_tensors="pt").to(model.device)
  auto input_ids = tokenizer.encode("How to make a cake");
  // output = model.generate(input_ids, do_sample=True, max_length=50, pad_token_id=50256)
  auto output = model.generate(input_ids, {.max_length = 50, .do_sample = true, .pad_token_id = 50256});
  // print(tokenizer.decode(output[0], skip_special_tokens=True))
  std::cout << tokenizer.decode(output, {.skip_special_tokens = true}) << '\n';
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "awq_exllama: " << error.what() << '\n';
  return error.exit_code();
}
