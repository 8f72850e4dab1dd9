// The guide's example of the outlier threshold.
//   bnb_threshold [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM, BitsAndBytesConfig
using nibble::AutoModelForCausalLM;
using nibble::BitsAndBytesConfig;

int main(int argc, char** argv) try {
  // model_id = "bigscience/bloom-1b7"
  const std::string model_id = argc > 1 ? argv[1] : "bigscience/bloom-1b7";
  // "An "outlier" is a hidden state value greater than a certain threshold, and these values are computed in fp16. A
  // good default threshold value is 6, but a lower threshold may be needed for more unstable models."
  // quantization_config = BitsAndBytesConfig(
  //     llm_int8_threshold=10,
  // )
  auto quantization_config = BitsAndBytesConfig{
      .llm_int8_threshold = 10,
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
  std::cerr << "bnb_threshold: " << error.what() << '\n';
  return error.exit_code();
}
