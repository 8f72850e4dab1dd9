#include "run/rotation/rotation.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/error.h"
#include "base/rng.h"
#include "base/scratch_array.h"
#include "models/arch.h"
#include "models/decoder.h"
#include "models/model_class.h"

namespace nibble {

using Side = RotatedMatrix::Side;

namespace {

/// What a rotated checkpoint's tensors lie in.
struct Memory {
  Memory(std::shared_ptr<const Checkpoint> kept, ScratchArray rotated)
      : source(std::move(kept)), array(std::move(rotated)) {}
  std::shared_ptr<const Checkpoint> source;  ///< tensors that stay as they are
  ScratchArray array;

  void release(const View& view) {
    const auto* begin = reinterpret_cast<const std::byte*>(array.data());
    const std::less<const std::byte*> before;
    if (before(view.data(), begin) || !before(view.data(), begin + array.size() * kFloat)) return source->release(view);
    array.release((view.data() - begin) / kFloat, static_cast<std::int64_t>(view.size_bytes()) / kFloat);
  }

 private:
  static constexpr std::int64_t kFloat = sizeof(float);
};

}  // namespace

/// Finds out what becomes of every tensor.
class RotationPlanner {
 public:
  RotationPlanner(Rotation& rotation, Exec& exec) : rotation_(rotation), source_(*rotation.source_) {
    const models::ArchSpec& arch = rotatable_arch();
    const WeightStore weights(rotation.source_);
    if (weights.scheme() != nullptr) {
      throw bad_input(source_.folder().string(), ": already quantized (", weights.scheme()->name,
                      "); only float models can be rotated");
    }
    decoder_ = models::build_decoder(weights, exec);
    refuse_other_shapes(arch);
    rotation.hidden_ = decoder_.config.hidden_size;
    rotation.head_dim_ = decoder_.config.head_dim;
    rotation.head_bases_ = decoder_.config.num_layers * decoder_.config.num_kv_heads;
    for (const nn::Block& block : decoder_.blocks) add_block(block);
    add_ends();
    for (const auto& [name, changed] : rotation_.changed_) {
      std::int64_t covered = 0;
      for (const RotatedMatrix& part : changed.parts) covered += part.rows * part.cols;
      check(changed.parts.empty() || covered == changed.source->view.count(), "Rotation: a tensor is rotated in part");
    }
  }

 private:
  std::string config_file() const { return (source_.folder() / "config.json").string(); }

  const models::ArchSpec& rotatable_arch() const {
    const models::ModelClass& found = models::model_class_of(source_.config(), config_file());
    const models::ArchSpec* arch = models::find_arch(found.hf_class);
    if (arch == nullptr) {
      throw bad_input(config_file(), ": ", found.hf_class, " cannot be rotated: only decoders with RMSNorm can");
    }
    if (arch->norm != nn::NormKind::rms) {
      throw bad_input(config_file(), ": ", found.hf_class,
                      " cannot be rotated: its LayerNorm subtracts a mean, which another basis does not keep; only "
                      "decoders with RMSNorm can");
    }
    return *arch;
  }

  /// Families to come: what is planned below is the whole model only if it has this shape.
  void refuse_other_shapes(const models::ArchSpec& arch) const {
    const models::ModelConfig& c = decoder_.config;
    const bool known = c.block == nn::standard_block && c.norm_first && c.norm_affine && c.final_norm &&
                       c.embed_size == c.hidden_size && arch.positions == models::Positions::rotary &&
                       !arch.transposed && arch.find(models::Slot::embedding_norm) == nullptr &&
                       arch.find(models::Slot::qkv) == nullptr;
    if (!known) {
      throw bad_input(config_file(), ": ", arch.hf_class, " cannot be rotated: its blocks have another shape");
    }
  }

  void add_block(const nn::Block& block) {
    const nn::Attention& a = block.attention;
    const auto attention_norm = folded(block.attention_norm), mlp_norm = folded(block.mlp_norm);
    const RotatedMatrix reads{.norm = attention_norm, .inputs = Side::residual};
    RotatedMatrix heads{.first_head = a.layer * a.kv_heads, .head_dim = a.head_dim};
    add(a.q, reads);
    add(a.k, reads);
    RotatedMatrix v = heads;
    v.norm = attention_norm;
    v.inputs = Side::residual;
    v.outputs = Side::heads;
    add(a.v, v);
    heads.heads_per_base = a.heads / a.kv_heads;
    heads.inputs = Side::heads;
    heads.outputs = Side::residual;
    add(a.o, heads);
    if (block.moe.experts.empty()) return add_mlp(block.mlp, mlp_norm);
    add(block.moe.router, {.norm = mlp_norm, .inputs = Side::residual});
    for (const nn::Mlp& expert : block.moe.experts) add_mlp(expert, mlp_norm);
  }

  void add_mlp(const nn::Mlp& mlp, const std::shared_ptr<const std::vector<float>>& norm) {
    check(mlp.gate.weight.rows > 0 && mlp.activation_scales.empty(), "Rotation: an MLP of another shape");
    add(mlp.gate, {.norm = norm, .inputs = Side::residual});
    add(mlp.up, {.norm = norm, .inputs = Side::residual});
    add(mlp.down, {.outputs = Side::residual});
  }

  /// Embedding, final norm and head. The final norm's weight can move into the head only, so a head that is the
  /// embedding must part from it, unless the weight is one number: then it may stay where it is.
  void add_ends() {
    const nn::Norm& norm = decoder_.final_norm;
    const bool tied = decoder_.config.tie_embeddings;
    const bool constant =
        std::all_of(norm.weight.begin(), norm.weight.end(), [&](float value) { return value == norm.weight.front(); });
    const std::string tokens = decoder_.tokens.name + ".weight", head = decoder_.head.name + ".weight";
    const TensorEntry *own_tokens = source_.find(tokens), *own_head = source_.find(head);
    const RotatedMatrix table{.rows = decoder_.config.vocab_size, .cols = rotation_.hidden_, .inputs = Side::residual};
    if (tied && constant) {
      if (own_tokens != nullptr) rotation_.changed_[tokens] = {own_tokens, {table}};
      if (own_head != nullptr) rotation_.changed_[head] = {own_head, {table}};
      return;
    }
    RotatedMatrix reads = table;
    reads.norm = folded(norm);
    rotation_.changed_[tokens] = {own_tokens != nullptr ? own_tokens : own_head, {table}};
    rotation_.changed_[head] = {own_head != nullptr ? own_head : own_tokens, {reads}};
    rotation_.unties_ = tied;
    if (own_tokens != nullptr && own_head != nullptr) return;
    const auto bytes = (own_head != nullptr ? own_head : own_tokens)->view.size_bytes();
    rotation_.notes_.push_back(cat("rotating unties the output head from the embedding, since the final norm's weight ",
                                   "moves into it: ", bytes, " bytes more in floats"));
  }

  /// The norm's weight for the linears behind it; becomes ones.
  std::shared_ptr<const std::vector<float>> folded(const nn::Norm& norm) {
    const TensorEntry* entry = source_.find(norm.name + ".weight");
    if (entry == nullptr) entry = source_.find(norm.name + ".gamma");
    check(entry != nullptr, "Rotation: a norm has no tensor");
    rotation_.changed_[entry->name] = {entry, {}};
    return std::make_shared<const std::vector<float>>(norm.weight);
  }

  void add(const nn::Linear& linear, RotatedMatrix how) {
    how.rows = linear.weight.rows;
    how.cols = linear.weight.cols;
    const TensorEntry* entry = source_.find(linear.name + ".weight");
    if (entry == nullptr) {  // one of several in a tensor
      entry = &holder_of(linear.weight.part[0]);
      const auto bytes = linear.weight.part[0].data() - entry->view.data();
      how.offset = bytes / static_cast<std::int64_t>(size_of(entry->view.dtype()));
    }
    Rotation::Changed& changed = rotation_.changed_[entry->name];
    changed.source = entry;
    changed.parts.push_back(how);
    if (linear.bias.empty() || how.outputs == Side::none) return;
    const TensorEntry* bias = source_.find(linear.name + ".bias");
    check(bias != nullptr, "Rotation: a bias has no tensor");
    how.cols = 1;
    how.offset = 0;
    how.norm = nullptr;
    how.inputs = Side::none;
    rotation_.changed_[bias->name] = {bias, {how}};
  }

  const TensorEntry& holder_of(const View& part) const {
    const std::less_equal<const std::byte*> before;
    const TensorEntry* found = nullptr;
    for (const TensorEntry& entry : source_.tensors()) {
      const View& view = entry.view;
      if (before(view.data(), part.data()) &&
          before(part.data() + part.size_bytes(), view.data() + view.size_bytes())) {
        found = &entry;
      }
    }
    check(found != nullptr, "Rotation: a weight lies in no tensor");
    return *found;
  }

  Rotation& rotation_;
  const Checkpoint& source_;
  models::Decoder decoder_;
};

Rotation::Rotation(std::shared_ptr<const Checkpoint> source, Exec& exec) : source_(std::move(source)) {
  RotationPlanner(*this, exec);
}

std::int64_t Rotation::bytes() const {
  std::int64_t sum = 0;
  for (const auto& [name, changed] : changed_) sum += static_cast<std::int64_t>(changed.source->view.size_bytes());
  return sum;
}

std::shared_ptr<const Checkpoint> Rotation::made(std::vector<TensorEntry> changed, std::shared_ptr<const void> owner,
                                                 std::function<void(const View&)> release) const {
  CheckpointParts parts;
  parts.folder = source_->folder();
  parts.tensors = std::move(changed);
  for (const TensorEntry& entry : source_->tensors()) {
    if (!changed_.contains(entry.name)) parts.tensors.push_back(entry);
  }
  parts.config = source_->config();
  if (unties_) parts.config.set("tie_word_embeddings", false);
  parts.metadata = source_->metadata();
  parts.files = source_->files();
  parts.owner = std::move(owner);
  parts.release = std::move(release);
  return Checkpoint::in_memory(std::move(parts));
}

std::shared_ptr<const Checkpoint> Rotation::preview() const {
  std::vector<TensorEntry> tensors;
  for (const auto& [name, changed] : changed_) {
    tensors.push_back(*changed.source);
    tensors.back().name = name;
  }
  return made(std::move(tensors), source_, [source = source_](const View& view) { source->release(view); });
}

Bases Rotation::bases(std::uint64_t seed) const {
  Rng seeds(seed);
  Bases made{RandomHadamard(hidden_, seeds.next()), {}};
  for (std::int64_t i = 0; i < head_bases_; ++i) made.heads.emplace_back(head_dim_, seeds.next());
  return made;
}

std::shared_ptr<const Checkpoint> Rotation::rotate(const RotateOptions& options, ThreadPool& pool,
                                                   const ProgressCallback& progress) const {
  constexpr std::int64_t kAlign = 16;  // floats: a cache line
  const auto floats_of = [&](const Changed& changed) {
    const View& view = changed.source->view;
    const auto size = static_cast<std::int64_t>(size_of(options.dtype.value_or(view.dtype())));
    return (view.count() * size / static_cast<std::int64_t>(sizeof(float)) + kAlign) / kAlign * kAlign;
  };
  std::int64_t total = 0;
  for (const auto& [name, changed] : changed_) total += floats_of(changed);
  const auto owner = std::make_shared<Memory>(source_, ScratchArray(total, options.folder));
  const Bases turned = bases(options.seed);
  std::vector<TensorEntry> tensors;
  std::int64_t at = 0;
  for (const auto& [name, changed] : changed_) {
    if (progress) progress({"rotating", name, at, total});
    const View& view = changed.source->view;
    const DType dtype = options.dtype.value_or(view.dtype());
    auto* to = reinterpret_cast<std::byte*>(owner->array.data() + at);
    if (changed.parts.empty()) {
      const std::vector<float> ones(static_cast<std::size_t>(view.count()), 1.0f);
      convert_from_f32(dtype, ones.data(), to, view.count());
    }
    for (const RotatedMatrix& part : changed.parts) {
      const Rotated result = rotate_matrix(part, view, dtype, to, turned, pool);
      if (result == Rotated::fine) continue;
      throw bad_input(changed.source->file.string(), ": tensor ", printable(name),
                      result == Rotated::not_finite ? ": has a value that is not finite"
                                                    : ": has a value that is too large for its type when rotated");
    }
    TensorEntry entry = *changed.source;
    entry.name = name;
    entry.view = View(to, view.shape(), dtype);
    tensors.push_back(std::move(entry));
    source_->release(view);
    owner->release(tensors.back().view);
    at += floats_of(changed);
  }
  return made(std::move(tensors), owner, [owner](const View& view) { owner->release(view); });
}

}  // namespace nibble
