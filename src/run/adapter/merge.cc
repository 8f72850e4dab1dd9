#include "run/adapter/merge.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <set>

#include "base/error.h"
#include "checkpoint/side_files.h"
#include "checkpoint/writer.h"
#include "models/arch.h"
#include "models/model_config.h"
#include "nn/embedding.h"
#include "quant/quantize_checkpoint.h"
#include "quant/scheme.h"

namespace nibble {
namespace {

/// Rows decoded, changed and rounded at once.
constexpr std::int64_t kRows = 256;

constexpr std::array<const char*, 3> kQuantizationFiles{"quantize_config.json", "quant_config.json",
                                                        "quanto_qmap.json"};

bool is_plain(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

/// One tensor of the result and how it is made: from `weight` where that is set, else from `source`.
struct Output {
  TensorPlan plan;
  const TensorEntry* source = nullptr;
  const QTensor* weight = nullptr;
  const nn::LinearAdapter* linear = nullptr;
  const nn::EmbeddingAdapter* embedding = nullptr;
  const std::vector<float>* added_bias = nullptr;
  bool transposed = false;  ///< stored [inputs, outputs]
};

std::optional<DType> config_dtype(const Json& config) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const Json* field = config.get(key);
    if (field == nullptr || !field->is_string()) continue;
    const auto named = dtype_from_name(field->string(key));
    if (named && is_plain(*named)) return named;
  }
  return std::nullopt;
}

class Merger {
 public:
  Merger(const AdaptedBase& adapted, const MergeOptions& options, Exec& exec)
      : adapted_(adapted), options_(options), exec_(exec), store_(adapted.replaced) {
    static const nn::Adapters kNone;
    adapters_ = adapted.model->adapters() == nullptr ? &kNone : adapted.model->adapters();
    for (const ModuleView& view : adapted.model->modules()) {
      if (view.linear != nullptr) weights_[view.linear->name] = &view.linear->weight;
      if (view.embedding != nullptr) tables_[view.embedding->name] = &view.embedding->table;
    }
    if (store_.reader() != nullptr) {
      for (const std::string& module : store_.reader()->modules()) quantized_.insert(module);
    }
    arch_ = models::find_arch(models::architecture_of(adapted.replaced->config()));
    plan();
  }

  MergeResult write(const ProgressCallback& progress) {
    check_output_folder(adapted_.base->folder(), options_.out, options_.force);
    std::vector<TensorPlan> plans;
    for (const Output& output : outputs_) plans.push_back(output.plan);
    WriterOptions writing;
    writing.max_shard_bytes = options_.max_shard_bytes;
    CheckpointWriter writer(options_.out, std::move(plans), writing);
    std::int64_t done = 0;
    for (const Output& output : outputs_) {
      if (progress) progress({"merging", output.plan.name, done++, static_cast<std::int64_t>(outputs_.size())});
      write_one(writer, output);
    }
    for (SideFile& file : read_side_files(adapted_.base->folder())) {
      const auto same = [&](const char* name) { return file.name == name; };
      if (std::none_of(kQuantizationFiles.begin(), kQuantizationFiles.end(), same)) {
        writer.add_file(file.name, std::move(file.content));
      }
    }
    writer.add_file("config.json", config().dump(2) + "\n");
    result_.bytes = writer.total_bytes();
    writer.commit();
    return result_;
  }

 private:
  /// The quantized module that a tensor is a part of; "" for plain ones.
  std::string quantized_owner(const std::string& tensor) const {
    for (std::size_t dot = tensor.find('.'); dot != std::string::npos; dot = tensor.find('.', dot + 1)) {
      if (const std::string module = tensor.substr(0, dot); quantized_.contains(module)) return module;
    }
    return "";
  }

  void plan() {
    std::set<std::string> decoded;
    for (const TensorEntry& entry : adapted_.replaced->tensors()) {
      const std::string owner = quantized_owner(entry.name);
      const bool own_bias = !owner.empty() && entry.name == owner + ".bias" && is_plain(entry.view.dtype());
      if (owner.empty() || own_bias) {
        plan_plain(entry);
      } else if (decoded.insert(owner).second) {
        plan_decoded(owner);
      }
    }
    plan_tied_head();
    check_places();
  }

  DType dtype_for(DType stored) const { return is_plain(stored) ? options_.dtype.value_or(stored) : stored; }

  void plan_plain(const TensorEntry& entry) {
    if (!entry.raw_dtype.empty()) {
      throw bad_input(entry.file.string(), ": tensor ", printable(entry.name), ": dtype ", printable(entry.raw_dtype),
                      " cannot be written back");
    }
    const TensorEntry* before = adapted_.base->find(entry.name);
    const bool replaced = before == nullptr || before->view.data() != entry.view.data();
    if (replaced) ++result_.replaced;
    Output out;
    out.source = &entry;
    // A tensor that an adapter brings keeps the precision of what it replaces.
    out.plan = {entry.name, dtype_for(before == nullptr ? entry.view.dtype() : before->view.dtype()),
                entry.view.shape()};
    const std::size_t dot = entry.name.rfind('.');
    const std::string module = entry.name.substr(0, dot == std::string::npos ? 0 : dot);
    const std::string part = dot == std::string::npos ? "" : entry.name.substr(dot + 1);
    if (part == "weight") {
      const auto weight = weights_.find(module);
      out.linear = weight == weights_.end() ? nullptr : adapters_->linear(module);
      out.embedding = tables_.contains(module) ? adapters_->embedding(module) : nullptr;
      if (out.linear != nullptr) {
        out.weight = weight->second;
        out.transposed = arch_ != nullptr && arch_->transposed && module != head_module();
      }
      if (out.embedding != nullptr) out.weight = tables_.at(module);
      if (out.weight != nullptr) ++result_.changed;
    } else if (part == "bias") {
      if (const nn::LinearAdapter* linear = adapters_->linear(module); linear != nullptr && !linear->bias.empty()) {
        out.added_bias = &linear->bias;
        biased_.insert(module);
      }
    }
    outputs_.push_back(std::move(out));
  }

  void plan_decoded(const std::string& module) {
    const auto found = weights_.find(module);
    if (found == weights_.end()) {
      others_.push_back(store_.linear(module, exec_).weight);  // of a part that the model does not run
    }
    Output out;
    out.weight = found == weights_.end() ? &others_.back() : found->second;
    out.linear = found == weights_.end() ? nullptr : adapters_->linear(module);
    out.transposed = arch_ != nullptr && arch_->transposed && module != head_module();
    const DType dtype = options_.dtype.value_or(config_dtype(adapted_.replaced->config()).value_or(out.weight->dtype));
    const std::int64_t rows = out.weight->rows, cols = out.weight->cols;
    out.plan = {module + ".weight", dtype, out.transposed ? Shape{cols, rows} : Shape{rows, cols}};
    ++result_.dequantized;
    if (out.linear != nullptr) ++result_.changed;
    outputs_.push_back(std::move(out));
  }

  std::string head_module() const {
    const models::Name* head = arch_ == nullptr ? nullptr : arch_->find(models::Slot::head);
    return head == nullptr ? "" : std::string(head->module);
  }

  /// A head that shares the token embedding gets a weight of its own when only one of the two changes, or both do in
  /// different ways.
  void plan_tied_head() {
    for (const auto& [head, weight] : weights_) {
      const bool stored = adapted_.replaced->find(head + ".weight") != nullptr || quantized_.contains(head);
      if (stored || weight->rows != adapted_.model->info().vocab_size) continue;
      const nn::LinearAdapter* linear = adapters_->linear(head);
      const auto changes = [&, shared = weight->part[0].data()](const auto& table) {
        return table.second->part[0].data() == shared && adapters_->embedding(table.first) != nullptr;
      };
      if (linear == nullptr && std::none_of(tables_.begin(), tables_.end(), changes)) continue;
      if (adapted_.model->info().encoder_decoder) {
        throw bad_input(adapted_.base->folder().string(), ": tensor ", printable(head), ".weight: the head shares the ",
                        "token embedding, and a head of its own would be scaled otherwise: it cannot be merged into");
      }
      Output out;
      out.weight = weight;
      out.linear = linear;
      out.plan = {head + ".weight", dtype_for(weight->part[0].dtype()), {weight->rows, weight->cols}};
      outputs_.push_back(std::move(out));
      if (linear != nullptr) ++result_.changed;
      result_.unties = true;
    }
  }

  /// Every change must have found its tensor.
  void check_places() const {
    std::set<std::string> written;
    for (const Output& output : outputs_) {
      if (output.linear != nullptr || output.embedding != nullptr) written.insert(output.plan.name);
    }
    const auto need = [&](const std::string& module) {
      if (written.contains(module + ".weight")) return;
      throw bad_input(adapted_.base->folder().string(), ": tensor ", printable(module),
                      ".weight: the adapter changes it, but the checkpoint has none to merge into");
    };
    for (const auto& [module, linear] : adapters_->linears) {
      need(module);
      if (linear.bias.empty() || biased_.contains(module)) continue;
      throw bad_input(adapted_.base->folder().string(), ": tensor ", printable(module),
                      ".bias is missing: the adapter's lora_B.bias has no place to be merged into");
    }
    for (const auto& [module, embedding] : adapters_->embeddings) need(module);
  }

  void write_one(CheckpointWriter& writer, const Output& output) const {
    if (output.weight != nullptr) {
      writer.write(output.plan.name, changed_weight(output).view().bytes());
      return;
    }
    const View& view = output.source->view;
    if (output.added_bias == nullptr && view.dtype() == output.plan.dtype) {
      writer.write(output.plan.name, view.bytes());
      return;
    }
    std::vector<float> values = view.to_f32();
    if (output.added_bias != nullptr) {
      for (std::size_t i = 0; i < values.size(); ++i) values[i] += (*output.added_bias)[i];
    }
    Tensor made(view.shape(), output.plan.dtype);
    convert_from_f32(made.dtype(), values.data(), made.data(), made.count());
    writer.write(output.plan.name, made.view().bytes());
  }

  /// The weight decoded, changed and rounded to the plan's dtype.
  Tensor changed_weight(const Output& output) const {
    const QTensor& weight = *output.weight;
    const std::int64_t cols = weight.cols;
    const DType dtype = output.plan.dtype;
    Tensor made(output.plan.shape, dtype);
    std::vector<float> block(static_cast<std::size_t>(std::min(kRows, weight.rows) * cols));
    for (std::int64_t first = 0; first < weight.rows; first += kRows) {
      const std::int64_t count = std::min(kRows, weight.rows - first);
      decode(weight, first, count, block.data(), exec_);
      exec_.pool.run(count, 1, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t row = begin; row < end; ++row) {
          float* values = block.data() + row * cols;
          if (output.linear != nullptr) output.linear->merge(first + row, 1, values);
          if (output.embedding != nullptr) output.embedding->add(first + row, values);
          if (!output.transposed) {
            const auto at = static_cast<std::size_t>((first + row) * cols) * size_of(dtype);
            convert_from_f32(dtype, values, made.data() + at, cols);
            continue;
          }
          for (std::int64_t i = 0; i < cols; ++i)
            store_from_f32(dtype, made.data(), i * weight.rows + first + row, values[i]);
        }
      });
    }
    return made;
  }

  Json config() const {
    Json out = adapted_.replaced->config();
    for (const char* key : {"quantization_config", "compression_config"}) out.erase(key);
    if (result_.unties) out.set("tie_word_embeddings", false);
    if (options_.dtype) {
      const char* key = out.get("torch_dtype") != nullptr ? "torch_dtype" : "dtype";
      out.set(key, Json(torch_name(*options_.dtype)));
    }
    return out;
  }

  const AdaptedBase& adapted_;
  const MergeOptions& options_;
  Exec& exec_;
  WeightStore store_;
  const nn::Adapters* adapters_ = nullptr;
  const models::ArchSpec* arch_ = nullptr;
  std::map<std::string, const QTensor*> weights_, tables_;
  std::set<std::string> quantized_, biased_;
  std::deque<QTensor> others_;
  std::vector<Output> outputs_;
  MergeResult result_;
};

}  // namespace

AdaptedBase open_adapted(const std::shared_ptr<const Checkpoint>& base, std::span<const AdapterUse> uses,
                         const ModelOptions& options, Exec& exec) {
  AdaptedBase out;
  out.base = base;
  out.replaced = with_replacements(base, uses);
  out.model = Model::load(out.replaced, options, exec);
  out.model->set_adapters(bind_adapters(*out.model, uses, exec));
  return out;
}

MergeResult write_merged(const AdaptedBase& adapted, const MergeOptions& options, Exec& exec,
                         const ProgressCallback& progress) {
  return Merger(adapted, options, exec).write(progress);
}

}  // namespace nibble
