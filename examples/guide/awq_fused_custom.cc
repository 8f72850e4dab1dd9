// The guide's example of a custom fusing mapping. The numbers must be the model's; other models than the guide's are
// Llamas.
//   awq_fused_custom [MODEL HEADS KV_HEADS HIDDEN]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AwqConfig, AutoModelForCausalLM
using nibble::AutoModelForCausalLM;
using nibble::AwqConfig;
using nibble::FusedModules;

int main(int argc, char** argv) try {
  // model_id = "TheBloke/Yi-34B-AWQ"
  const std::string model_id = argc > 1 ? argv[1] : "TheBloke/Yi-34B-AWQ";
  const bool other = argc > 4;
  // "For architectures that don't support fused modules yet, you need to create a custom fusing mapping to define which
  // modules need to be fused with the modules_to_fuse parameter."
  // quantization_config = AwqConfig(
  //     bits=4,
  //     fuse_max_seq_len=512,
  //     modules_to_fuse={
  //         "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
  //         "layernorm": ["ln1", "ln2", "norm"],
  //         "mlp": ["gate_proj", "up_proj", "down_proj"],
  //         "use_alibi": False,
  //         "num_attention_heads": 56,
  //         "num_key_value_heads": 8,
  //         "hidden_size": 7168
  //     }
  // )
  auto quantization_config = AwqConfig{
      .bits = 4,
      .fuse_max_seq_len = 512,
      .modules_to_fuse =
          FusedModules{
              .attention = {"q_proj", "k_proj", "v_proj", "o_proj"},
              .layernorm = {"ln1", "ln2", "norm"},
              .mlp = {"gate_proj", "up_proj", "down_proj"},
              .use_alibi = false,
              .num_attention_heads = other ? std::stoll(argv[2]) : 56,
              .num_key_value_heads = other ? std::stoll(argv[3]) : 8,
              .hidden_size = other ? std::stoll(argv[4]) : 7168,
          },
  };
  if (other) quantization_config.modules_to_fuse->layernorm = {"input_layernorm", "post_attention_layernorm", "norm"};
  // model = AutoModelForCausalLM.from_pretrained(model_id, quantization_config=quantization_config).to(0)
  auto model = AutoModelForCausalLM::from_pretrained(model_id, {.quantization_config = quantization_config}).to(0);
  show(model);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "awq_fused_custom: " << error.what() << '\n';
  return error.exit_code();
}
