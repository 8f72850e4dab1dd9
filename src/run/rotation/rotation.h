// Rotating a model: the same function with other weights, in which no channel stands out, so that few bits hold them
// better. An orthogonal matrix R turns the residual stream, and one per value head, S, what lies between v and o:
// QuaRot (arXiv:2404.00456) and SpinQuant (arXiv:2405.16406; its R1 and R2, both random, none learned). RMSNorm without
// a weight does not see R, so its weight first moves into the linears behind it; then everything that writes to the
// stream (embedding, o, down) is multiplied by R, and everything that reads it (q, k, v, gate, up, router, head) by its
// inverse. All of it is folded into the weights: the result is an ordinary checkpoint of the same class, and what runs
// it does nothing new. The rotations of those papers that act while the model runs (down's input, q and k) are left
// out.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "checkpoint/checkpoint.h"
#include "device/device.h"
#include "run/rotation/rotate_matrix.h"

namespace nibble {

struct RotateOptions {
  std::uint64_t seed = 0;  ///< of everything random
  /// Where a file without a name takes the rotated tensors; empty: in memory.
  std::filesystem::path folder{};
  std::optional<DType> dtype{};  ///< of the rotated tensors; none: the source's
};

class Rotation {
 public:
  /// Plans it; reads no more than norms. Throws Error(bad_input) in one line when the family does not allow it, the
  /// checkpoint is quantized, or tensors are missing or of another shape than config.json says.
  Rotation(std::shared_ptr<const Checkpoint> source, Exec& exec);

  /// What the user should know, one line each.
  const std::vector<std::string>& notes() const { return notes_; }
  /// What the rotated tensors take, in the source's types.
  std::int64_t bytes() const;

  /// The rotated checkpoint's tensors by name, type and shape, with values that are not rotated: for plans.
  std::shared_ptr<const Checkpoint> preview() const;

  /// The rotated checkpoint: its folder, and so its side files, are the source's; its config is the source's but for
  /// tie_word_embeddings, which becomes false where the head must part from the embedding. Same options, same bytes,
  /// for any number of threads. Throws Error(bad_input) naming a tensor that is not finite or does not fit its type any
  /// more, Error(runtime) when the disk has no room.
  std::shared_ptr<const Checkpoint> rotate(const RotateOptions& options, ThreadPool& pool,
                                           const ProgressCallback& progress = {}) const;

 private:
  friend class RotationPlanner;
  /// A tensor of the result that is not one of the source's.
  struct Changed {
    const TensorEntry* source = nullptr;  ///< whose type and shape it has
    std::vector<RotatedMatrix> parts;     ///< all of its values; empty: they become ones
  };
  std::shared_ptr<const Checkpoint> made(std::vector<TensorEntry> changed, std::shared_ptr<const void> owner,
                                         std::function<void(const View&)> release) const;
  Bases bases(std::uint64_t seed) const;

  std::shared_ptr<const Checkpoint> source_;
  std::map<std::string, Changed> changed_;  ///< by name
  std::vector<std::string> notes_;
  bool unties_ = false;
  std::int64_t hidden_ = 0, head_dim_ = 0, head_bases_ = 0;
};

}  // namespace nibble
