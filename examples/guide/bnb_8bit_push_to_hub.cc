// The guide's example of sharing an 8-bit model.
//   bnb_8bit_push_to_hub [MODEL [FOLDER]]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, AutoTokenizer
using nibble::AutoModelForCausalLM;
using nibble::AutoTokenizer;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "bigscience/bloom-560m";
  // model = AutoModelForCausalLM.from_pretrained("bigscience/bloom-560m", device_map="auto", load_in_8bit=True)
  auto model = AutoModelForCausalLM::from_pretrained(model_id, {.device_map = "auto", .load_in_8bit = true});
  // tokenizer = AutoTokenizer.from_pretrained("bigscience/bloom-560m")
  auto tokenizer = AutoTokenizer::from_pretrained(model_id);

  // model.push_to_hub("bloom-560m-8bit")
  const std::string folder = argc > 2 ? argv[2] : "bloom-560m-8bit";
  try {
    model.push_to_hub("bloom-560m-8bit");
  } catch (const nibble::Error& error) {
    std::cout << error.what() << '\n';  // nibble has no network: save the model and upload the folder
    model.save_pretrained(folder);
    tokenizer.save_pretrained(folder);
  }
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "bnb_8bit_push_to_hub: " << error.what() << '\n';
  return error.exit_code();
}
