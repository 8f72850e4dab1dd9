#include "checkpoint/fingerprint.h"

#include <algorithm>

#include "base/error.h"
#include "base/sha256.h"

namespace nibble {
namespace {

/// Large tensors are hashed in pieces, so that threads share the work; the hash of the list of hashes is the result.
constexpr std::int64_t kPiece = std::int64_t{8} << 20;

struct Piece {
  std::span<const std::byte> bytes;
  std::string hash;
};

}  // namespace

std::string model_fingerprint(const Checkpoint& checkpoint, ThreadPool& pool) {
  std::vector<Piece> pieces;
  for (const TensorEntry& entry : checkpoint.tensors()) {
    const std::span<const std::byte> bytes = entry.view.bytes();
    for (std::size_t at = 0; at < bytes.size(); at += kPiece) {
      pieces.push_back({bytes.subspan(at, std::min<std::size_t>(kPiece, bytes.size() - at)), {}});
    }
  }
  pool.run(static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      Piece& piece = pieces[static_cast<std::size_t>(i)];
      piece.hash = sha256_hex(piece.bytes);
      checkpoint.release(View(piece.bytes.data(), {static_cast<std::int64_t>(piece.bytes.size())}, DType::u8));
    }
  });
  std::string all = checkpoint.config().dump() + "\n";
  std::size_t next = 0;
  for (const TensorEntry& entry : checkpoint.tensors()) {
    all += cat(entry.name, '\n', name_of(entry.view.dtype()), entry.raw_dtype, to_string(entry.view.shape()), '\n');
    for (std::size_t at = 0; at < entry.view.size_bytes(); at += kPiece) all += pieces[next++].hash;
    all += '\n';
  }
  return sha256_hex(std::as_bytes(std::span(all)));
}

}  // namespace nibble
