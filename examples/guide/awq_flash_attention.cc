// The guide's AWQ example of FlashAttention-2.
//   awq_flash_attention [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, AutoTokenizer
using nibble::AutoModelForCausalLM;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "TheBloke/zephyr-7B-alpha-AWQ";
  // "AWQ quantization can also be combined with FlashAttention-2 to further accelerate inference": nibble's attention
  // is of that kind already, so the name is accepted and changes nothing.
  // model = AutoModelForCausalLM.from_pretrained("TheBloke/zephyr-7B-alpha-AWQ",
  //                                              attn_implementation="flash_attention_2", device_map="cuda:0")
  auto model = AutoModelForCausalLM::from_pretrained(model_id,
                                                     {.device_map = "cpu", .attn_implementation = "flash_attention_2"});
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "awq_flash_attention: " << error.what() << '\n';
  return error.exit_code();
}
