// The files of a model folder that are not weights: what a saved model must carry along so that other programs load it.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"

namespace nibble {

struct SideFile {
  std::string name;  ///< relative to the folder: "tokenizer.json", "additional_chat_templates/tool_use.jinja"
  std::string content;
};

/// Tokenizer files, generation_config.json, chat templates, processor and feature extractor settings, licences, readme,
/// model code: text of at most 256 MB by extension; no weights, no weight index, no config.json. In name order. Throws
/// Error(bad_input) when a link leads out of the folder (other than into the blobs of a Hugging Face cache).
std::vector<SideFile> read_side_files(const std::filesystem::path& folder);

/// Adds all side files of `source` to the writer (those in memory before those of its folder), and `config` (usually
/// source.config() with edits) as config.json in Transformers' style: indented by 2, keys in their order. A null config
/// writes none.
void add_side_files(CheckpointWriter& writer, const Checkpoint& source, const Json& config);

/// Throws Error(bad_input) when both are the same folder: a model must not be overwritten while it is read.
void refuse_same_folder(const std::filesystem::path& output, const std::filesystem::path& input);

/// Whether `file` (followed through links) lies in `folder` or in the blobs of a Hugging Face cache
/// (.../models--org--name/blobs).
bool lies_within(const std::filesystem::path& file, const std::filesystem::path& folder);

}  // namespace nibble
