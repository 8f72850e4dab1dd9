// The guide's example of fused modules for supported architectures.
//   awq_fused [MODEL]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AwqConfig, AutoModelForCausalLM
using nibble::AutoModelForCausalLM;
using nibble::AwqConfig;

int main(int argc, char** argv) try {
  // model_id = "TheBloke/Mistral-7B-OpenOrca-AWQ"
  const std::string model_id = argc > 1 ? argv[1] : "TheBloke/Mistral-7B-OpenOrca-AWQ";
  // "To enable fused modules for supported architectures, create an AwqConfig and set the parameters fuse_max_seq_len
  // and do_fuse=True. The fuse_max_seq_len parameter is the total sequence length and it should include the context
  // length and the expected generation length. You can set it to a larger value to be safe."
  // quantization_config = AwqConfig(
  //     bits=4,
  //     fuse_max_seq_len=512,
  //     do_fuse=True,
  // )
  auto quantization_config = AwqConfig{
      .bits = 4,
      .do_fuse = true,
      .fuse_max_seq_len = 512,
  };
  // model = AutoModelForCausalLM.from_pretrained(model_id, quantization_config=quantization_config).to(0)
  auto model = AutoModelForCausalLM::from_pretrained(model_id, {.quantization_config = quantization_config}).to(0);
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "awq_fused: " << error.what() << '\n';
  return error.exit_code();
}
