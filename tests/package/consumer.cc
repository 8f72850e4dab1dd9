#include <nibble/nibble.h>

#include <iostream>

int main(int argc, char** argv) try {
  if (argc < 2) return 2;
  auto tokenizer = nibble::AutoTokenizer::from_pretrained(argv[1]);
  auto model = nibble::AutoModelForCausalLM::from_pretrained(
      argv[1], {.quantization_config = nibble::QuantoConfig{.weights = "int4"}});
  const auto output = model.generate(tokenizer("Once upon a time"), {.max_new_tokens = 5, .do_sample = false});
  std::cout << "nibble " << nibble::version() << ": " << tokenizer.decode(output.at(0), {.skip_special_tokens = true})
            << '\n';
  try {
    nibble::AutoModelForCausalLM::from_pretrained("/nowhere");
    return 1;
  } catch (const nibble::Error& error) {
    return error.kind() == nibble::ErrorKind::bad_input ? 0 : 1;
  }
} catch (const nibble::Error& error) {
  std::cerr << error.what() << '\n';
  return error.exit_code();
}
