// Calibration data: token sequences from a text or from ready ids.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace nibble {

struct DatasetOptions {
  std::int64_t samples = 128;  ///< sequences, at most
  std::int64_t seqlen = 512;   ///< tokens of one sequence, at most
};

/// Sequences of at most seqlen tokens from `file`: a .json document {"ids": [[...], ...]}; .jsonl rows with a field
/// "text", each a sequence of its own; any other file as one text, cut into consecutive pieces. Texts are encoded with
/// the tokenizer of `model_folder`. Throws Error(bad_input) naming the file; also when there is no token.
std::vector<std::vector<std::int32_t>> read_dataset(const std::filesystem::path& file,
                                                    const std::filesystem::path& model_folder,
                                                    const DatasetOptions& options);

}  // namespace nibble
