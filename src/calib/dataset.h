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

/// Tokens of all sequences.
std::int64_t token_count(const std::vector<std::vector<std::int32_t>>& sequences);

/// Whether `name` is a data set by name rather than a file: builtin, c4, c4-new, wikitext2, ptb.
bool is_dataset_name(const std::string& name);

/// Sequences from a data set by name or from a file (as read_dataset). "builtin" is a small text of nibble's own, whose
/// pieces are put together in another order for every sequence; the other names need `path`, the file or folder where
/// the data set lies. Throws Error(bad_input), for a name without path with what to do about it.
std::vector<std::vector<std::int32_t>> calibration_sequences(const std::string& name, const std::filesystem::path& path,
                                                             const std::filesystem::path& model_folder,
                                                             const DatasetOptions& options);

}  // namespace nibble
