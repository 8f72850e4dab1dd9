// The guide's example of modules that are not converted.
//   bnb_skip_modules [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, BitsAndBytesConfig
using nibble::AutoModelForCausalLM;
using nibble::BitsAndBytesConfig;

int main(int argc, char** argv) try {
  // model_id = "bigscience/bloom-1b7"
  const std::string model_id = argc > 1 ? argv[1] : "bigscience/bloom-1b7";
  // "For some models, like Jukebox, you don't need to quantize every module to 8-bit which can actually cause
  // instability. With Jukebox, there are several lm_head modules that should be skipped"
  // quantization_config = BitsAndBytesConfig(
  //     llm_int8_skip_modules=["lm_head"],
  // )
  auto quantization_config = BitsAndBytesConfig{
      .llm_int8_skip_modules = {{"lm_head"}},
  };

  // model_8bit = AutoModelForCausalLM.from_pretrained(
  //     model_id,
  //     device_map="auto",
  //     quantization_config=quantization_config,
  // )
  auto model_8bit = AutoModelForCausalLM::from_pretrained(model_id, {
                                                                        .device_map = "auto",
                                                                        .quantization_config = quantization_config,
                                                                    });
  show(model_8bit);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "bnb_skip_modules: " << error.what() << '\n';
  return error.exit_code();
}
