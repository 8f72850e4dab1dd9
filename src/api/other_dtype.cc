#include "api/other_dtype.h"

#include <algorithm>
#include <array>

#include "api/edit_checkpoint.h"
#include "quant/scheme.h"

namespace nibble {
namespace {

/// Keeps the rounded tensors and the source alive.
struct Owner {
  std::shared_ptr<const Checkpoint> source;
  std::vector<Tensor> tensors;
};

Tensor rounded(const View& from, DType dtype, ThreadPool& pool) {
  constexpr std::int64_t kBlock = 1024;
  Tensor to(from.shape(), dtype);
  const std::byte* source = from.data();
  std::byte* target = to.data();
  pool.run(from.count(), kBlock, [&](std::int64_t begin, std::int64_t end, int) {
    std::array<float, kBlock> values;
    for (std::int64_t at = begin; at < end; at += kBlock) {
      const std::int64_t count = std::min(kBlock, end - at);
      convert_to_f32(from.dtype(), source + at * static_cast<std::int64_t>(size_of(from.dtype())), values.data(),
                     count);
      convert_from_f32(dtype, values.data(), target + at * static_cast<std::int64_t>(size_of(dtype)), count);
    }
  });
  return to;
}

}  // namespace

bool belongs_to(const std::string& tensor, const std::vector<std::string>& modules) {
  for (std::size_t dot = tensor.rfind('.'); dot != std::string::npos && dot > 0; dot = tensor.rfind('.', dot - 1)) {
    if (std::binary_search(modules.begin(), modules.end(), tensor.substr(0, dot))) return true;
  }
  return false;
}

std::vector<std::string> quantized_modules(std::shared_ptr<const Checkpoint> checkpoint) {
  const WeightStore store(std::move(checkpoint));
  if (store.reader() == nullptr) return {};
  std::vector<std::string> modules = store.reader()->modules();
  std::sort(modules.begin(), modules.end());
  return modules;
}

std::shared_ptr<const Checkpoint> with_other_dtype(std::shared_ptr<const Checkpoint> checkpoint, DType dtype,
                                                   const std::vector<std::string>& quantized, ThreadPool& pool) {
  if (dtype == DType::f32) return checkpoint;
  CheckpointParts parts = parts_of(checkpoint);
  const auto owner = std::make_shared<Owner>();
  owner->source = checkpoint;
  for (TensorEntry& entry : parts.tensors) {
    const DType stored = entry.view.dtype();
    const bool plain = stored == DType::f32 || stored == DType::f16 || stored == DType::bf16;
    if (!plain || stored == dtype || !entry.raw_dtype.empty() || belongs_to(entry.name, quantized)) continue;
    owner->tensors.push_back(rounded(entry.view, dtype, pool));
    entry.view = owner->tensors.back().view();
  }
  if (owner->tensors.empty()) return checkpoint;
  parts.owner = owner;
  return Checkpoint::in_memory(std::move(parts));
}

}  // namespace nibble
