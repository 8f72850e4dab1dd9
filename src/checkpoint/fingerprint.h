// What a checkpoint is, in one number: the same model has the same fingerprint wherever and however it is stored.
#pragma once
#include <string>

#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"

namespace nibble {

/// SHA-256 in hexadecimal over config.json (parsed) and every tensor: name, dtype, shape, all bytes. File names, shards
/// and times do not enter. Reads the whole model, on all threads: 64 digits, the same for any number of them.
std::string model_fingerprint(const Checkpoint& checkpoint, ThreadPool& pool);

}  // namespace nibble
