// The guide's Quanto example, line for line. The Python lines stand as comments above their twins.
//   quanto [MODEL [FOLDER]]      MODEL: a folder or org/name in the Hugging Face cache; FOLDER: where to save
#include <nibble/nibble.h>

#include <iostream>

// from transformers import AutoModelForCausalLM, AutoTokenizer, QuantoConfig
using nibble::AutoModelForCausalLM;
using nibble::AutoTokenizer;
using nibble::QuantoConfig;

int main(int argc, char** argv) try {
  // model_id = "facebook/opt-125m"
  const std::string model_id = argc > 1 ? argv[1] : "facebook/opt-125m";
  // tokenizer = AutoTokenizer.from_pretrained(model_id)
  auto tokenizer = AutoTokenizer::from_pretrained(model_id);
  // quantization_config = QuantoConfig(weights="int8")
  auto quantization_config = QuantoConfig{.weights = "int8"};
  // quantized_model = AutoModelForCausalLM.from_pretrained(model_id, device_map="cuda:0",
  //                                                        quantization_config=quantization_config)
  auto quantized_model = AutoModelForCausalLM::from_pretrained(
      model_id, {.device_map = "cpu", .quantization_config = quantization_config});

  // The guide's example ends here; this is what one does with the model.
  auto inputs = tokenizer("Once upon a time");
  auto outputs = quantized_model.generate(inputs, {.max_new_tokens = 20, .do_sample = false});
  std::cout << tokenizer.decode(outputs.at(0), {.skip_special_tokens = true}) << '\n';
  std::cout << quantized_model.get_memory_footprint() << " bytes\n";

  // "If you want to save the model, you can use quanto library instead": nibble writes what that library loads.
  if (argc > 2) {
    quantized_model.save_pretrained(argv[2]);
    auto reloaded = AutoModelForCausalLM::from_pretrained(argv[2]);
    std::cout << "reloaded: " << reloaded.get_memory_footprint() << " bytes, "
              << (reloaded.generate(inputs, {.max_new_tokens = 20, .do_sample = false}) == outputs ? "same text"
                                                                                                   : "OTHER TEXT")
              << '\n';
  }
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "quanto: " << error.what() << '\n';
  return error.exit_code();
}
