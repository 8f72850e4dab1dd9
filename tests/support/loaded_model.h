// For tests of run: a loaded model with its Exec, and the files of tools/make_goldens.py.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "run/model.h"

namespace nibble::test {

struct LoadOptions {
  Target target = Target::cpu;
  DType compute = DType::f32;
  int threads = 2;
  std::int64_t prefill_chunk = 512;
  DType kv_dtype = DType::f32;
  std::int64_t max_context = 0;
};

/// `m->...` is the model.
struct LoadedModel {
  ThreadPool pool;
  Arena arena;
  Exec exec;
  std::unique_ptr<Model> model;

  explicit LoadedModel(const std::filesystem::path& folder, const LoadOptions& o = {})
      : pool(o.threads), exec{o.target, pool, arena, o.compute} {
    ModelOptions options;
    options.prefill_chunk = o.prefill_chunk;
    options.kv_dtype = o.kv_dtype;
    options.max_context = o.max_context;
    model = Model::load(Checkpoint::open(folder.string()), options, exec);
  }
  Model* operator->() const { return model.get(); }

  /// Logits of all positions of a fresh sequence, in one call.
  std::vector<float> one_shot(std::span<const std::int32_t> ids) {
    const std::int64_t sequence = model->open_sequence();
    const BatchItem item{sequence, ids, true, 0};
    std::vector<float> logits;
    model->forward({&item, 1}, logits, exec);
    model->close_sequence(sequence);
    return logits;
  }

  /// Of these positions only.
  std::vector<float> rows_of(std::span<const std::int32_t> ids, std::span<const std::int64_t> rows) {
    const std::vector<float> all = one_shot(ids);
    std::vector<float> out;
    for (const std::int64_t row : rows) {
      const auto begin = all.begin() + row * model->info().vocab_size;
      out.insert(out.end(), begin, begin + model->info().vocab_size);
    }
    return out;
  }
};

class Goldens {
 public:
  explicit Goldens(const std::filesystem::path& file) : file_(Checkpoint::open(file.string())) {}
  std::vector<std::int32_t> ids(int i) const { return integers("ids", i); }
  std::vector<std::int32_t> integers(const std::string& name, int i) const {
    const std::vector<std::int64_t> found = wide(name, i);
    return {found.begin(), found.end()};
  }
  std::vector<std::int64_t> rows(int i) const { return wide("rows", i); }
  std::vector<float> logits(const std::string& dtype, int i) const { return at("logits_" + dtype, i).to_f32(); }

 private:
  const View& at(const std::string& name, int i) const { return file_->at(name + "." + std::to_string(i)); }
  std::vector<std::int64_t> wide(const std::string& name, int i) const {
    const View& view = at(name, i);
    std::vector<std::int64_t> out;
    for (std::int64_t k = 0; k < view.count(); ++k) out.push_back(static_cast<std::int64_t>(view.at(k)));
    return out;
  }
  std::shared_ptr<const Checkpoint> file_;
};

}  // namespace nibble::test
