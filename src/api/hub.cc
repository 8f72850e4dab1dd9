// push_to_hub: nibble has no network, and says what to do instead.
#include "base/error.h"
#include "nibble/nibble.h"

namespace nibble {
namespace {

[[noreturn]] void refuse(const std::string& repository) {
  const std::string name = printable(repository);
  throw bad_input("push_to_hub: nibble has no network: save_pretrained(\"", name, "\"), then run: hf upload ", name,
                  " ", name);
}

}  // namespace

void PreTrainedModel::push_to_hub(const std::string& repository) const { refuse(repository); }
void PreTrainedTokenizer::push_to_hub(const std::string& repository) const { refuse(repository); }

}  // namespace nibble
