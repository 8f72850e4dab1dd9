// What a public PreTrainedTokenizer holds.
#pragma once
#include <filesystem>
#include <memory>

#include "nibble/nibble.h"
#include "text/tokenizer.h"

namespace nibble {

struct PreTrainedTokenizer::State {
  std::filesystem::path folder;
  std::shared_ptr<const Tokenizer> tokenizer;
};

}  // namespace nibble
