// The guide's 4-bit example of torch_dtype. NORM: a norm's weight in a model that is no OPT.
//   bnb_4bit_torch_dtype [MODEL NORM]
#include <nibble/nibble.h>

#include <iostream>

#include "show.h"

// from transformers import AutoModelForCausalLM
using nibble::AutoModelForCausalLM;

int main(int argc, char** argv) try {
  const std::string model_id = argc > 1 ? argv[1] : "facebook/opt-350m";
  const std::string norm = argc > 2 ? argv[2] : "model.decoder.layers.-1.final_layer_norm.weight";
  // "By default, all the other modules such as torch.nn.LayerNorm are converted to torch.float16": nibble, like
  // Transformers today, keeps them as they are stored. "You can change the data type of these modules with the
  // torch_dtype parameter if you want"
  // model_4bit = AutoModelForCausalLM.from_pretrained("facebook/opt-350m", load_in_4bit=True,
  //                                                   torch_dtype=torch.float32)
  auto model_4bit = AutoModelForCausalLM::from_pretrained(model_id, {.torch_dtype = "float32", .load_in_4bit = true});
  // model_4bit.model.decoder.layers[-1].final_layer_norm.weight.dtype
  std::cout << model_4bit.dtype_of(norm) << '\n';
  show(model_4bit);
  return 0;
} catch (const nibble::Error& error) {
  std::cerr << "bnb_4bit_torch_dtype: " << error.what() << '\n';
  return error.exit_code();
}
