// What a look at the bytes themselves tells about a checkpoint: damaged downloads and ruined weights.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "checkpoint/checkpoint.h"

namespace nibble {

struct TensorHealth {
  std::string name;
  std::int64_t nan = 0;       ///< elements
  std::int64_t infinite = 0;  ///< elements
  bool all_zero = false;      ///< every element is +0 or -0 (false for an empty tensor)
};

struct FileHealth {
  std::filesystem::path file;
  std::int64_t bytes = 0;
  std::string sha256;           ///< of a blob whose name is its sha256, else ""
  std::string expected_sha256;  ///< the blob's name, else ""
  std::string problem;          ///< "" when nothing is wrong
};

struct VerifyReport {
  std::vector<TensorHealth> tensors;  ///< those with NaN, infinities or zeros only, by name
  std::vector<FileHealth> files;      ///< every weight file
  std::int64_t values = 0;            ///< elements looked at
};

/// Counts NaN and infinities of the float tensors, compares files of a Hugging Face cache with the hash in their blob's
/// name and zip entries with their checksums. Reads every byte once or twice; tensors are split over the pool.
VerifyReport verify_checkpoint(const Checkpoint& checkpoint, ThreadPool& pool);

/// NaN, infinities and zeros of one tensor; integers can only be all zero.
TensorHealth health_of(const TensorEntry& tensor);

/// The weight files of a checkpoint, each once, in name order.
std::vector<std::filesystem::path> weight_files(const Checkpoint& checkpoint);

}  // namespace nibble
