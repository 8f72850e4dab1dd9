// Checkpoints that differ from a file's in a few JSON keys or tensors.
#pragma once
#include <memory>
#include <utility>

#include "checkpoint/checkpoint.h"

namespace nibble {

/// What Checkpoint::in_memory needs for the same checkpoint again: views of its tensors, its config and side files.
inline CheckpointParts parts_of(std::shared_ptr<const Checkpoint> source) {
  CheckpointParts parts;
  parts.folder = source->folder();
  parts.tensors.assign(source->tensors().begin(), source->tensors().end());
  parts.config = source->config();
  parts.metadata = source->metadata();
  parts.files = source->files();
  parts.owner = std::move(source);
  return parts;
}

}  // namespace nibble
