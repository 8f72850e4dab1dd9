#include "checkpoint/verify.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "checkpoint/torch_file.h"
#include "checkpoint/zip_archive.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

/// The hash in the name of the blob that a file of the Hugging Face cache links to; "" for other files and for blobs
/// named by a git hash.
std::string expected_hash(const fs::path& file) {
  std::error_code error;
  const fs::path real = fs::canonical(file, error);
  const std::string name = real.filename().string();
  const auto hex = [](unsigned char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  const bool hash = name.size() == 64 && std::all_of(name.begin(), name.end(), hex);
  return !error && hash && real.parent_path().filename() == "blobs" ? name : "";
}

FileHealth check_file(const fs::path& path) {
  FileHealth health;
  health.file = path;
  try {
    const auto file = MappedFile::open(path);
    health.bytes = static_cast<std::int64_t>(file->bytes().size());
    health.expected_sha256 = expected_hash(path);
    if (!health.expected_sha256.empty()) {
      health.sha256 = sha256_hex(file->bytes());
      if (health.sha256 != health.expected_sha256) health.problem = "its sha256 is " + health.sha256;
    }
    if (is_torch_file(*file)) verify_torch_file(file);
  } catch (const Error& error) {
    health.problem = error.what();
  }
  return health;
}

template <class Bits>
void count(const View& view, Bits magnitude_mask, Bits infinity, TensorHealth& health) {
  std::int64_t nan = 0, infinite = 0;
  Bits any = 0;
  const std::byte* data = view.data();
  for (std::int64_t i = 0; i < view.count(); ++i) {
    Bits bits;
    std::memcpy(&bits, data + i * static_cast<std::int64_t>(sizeof bits), sizeof bits);
    bits &= magnitude_mask;
    any |= bits;
    nan += bits > infinity ? 1 : 0;
    infinite += bits == infinity ? 1 : 0;
  }
  health.nan = nan;
  health.infinite = infinite;
  health.all_zero = any == 0 && view.count() > 0;
}

void count_any(const View& view, TensorHealth& health) {
  bool zero = view.count() > 0;
  for (std::int64_t i = 0; i < view.count(); ++i) {
    const float value = view.at(i);
    health.nan += std::isnan(value) ? 1 : 0;
    health.infinite += std::isinf(value) ? 1 : 0;
    zero = zero && value == 0;
  }
  health.all_zero = zero;
}

}  // namespace

TensorHealth health_of(const TensorEntry& tensor) {
  TensorHealth health;
  health.name = tensor.name;
  const View& view = tensor.view;
  switch (view.dtype()) {
    case DType::f64: count<std::uint64_t>(view, ~0ULL >> 1, 0x7ff0ULL << 48, health); break;
    case DType::f32: count<std::uint32_t>(view, 0x7fffffffU, 0x7f800000U, health); break;
    case DType::f16: count<std::uint16_t>(view, 0x7fff, 0x7c00, health); break;
    case DType::bf16: count<std::uint16_t>(view, 0x7fff, 0x7f80, health); break;
    default:
      if (is_float(view.dtype())) {
        count_any(view, health);
      } else {
        const auto bytes = view.bytes();
        health.all_zero =
            !bytes.empty() && std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
      }
  }
  return health;
}

std::vector<fs::path> weight_files(const Checkpoint& checkpoint) {
  std::set<fs::path> files;
  for (const TensorEntry& tensor : checkpoint.tensors()) files.insert(tensor.file);
  return {files.begin(), files.end()};
}

VerifyReport verify_checkpoint(const Checkpoint& checkpoint, ThreadPool& pool) {
  VerifyReport report;
  for (const fs::path& file : weight_files(checkpoint)) report.files.emplace_back().file = file;
  pool.run(static_cast<std::int64_t>(report.files.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      FileHealth& file = report.files[static_cast<std::size_t>(i)];
      file = check_file(file.file);
    }
  });
  const auto tensors = checkpoint.tensors();
  std::vector<TensorHealth> all(tensors.size());
  std::atomic<std::size_t> next{
      0};  // tensors differ much in size: hand them out one by one; results do not depend on it
  pool.run(pool.size(), 1, [&](std::int64_t, std::int64_t, int) {
    for (std::size_t i = next++; i < tensors.size(); i = next++) all[i] = health_of(tensors[i]);
  });
  for (std::size_t i = 0; i < all.size(); ++i) {
    report.values += tensors[i].view.count();
    if (all[i].nan != 0 || all[i].infinite != 0 || all[i].all_zero) report.tensors.push_back(std::move(all[i]));
  }
  return report;
}

}  // namespace nibble
