#include "quant/convert_checkpoint.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <system_error>

#include "base/error.h"
#include "checkpoint/side_files.h"
#include "checkpoint/writer.h"
#include "quant/common/module_tensors.h"
#include "quant/quantize_checkpoint.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

std::string known_targets(const Scheme* scheme) {
  std::string out = "same, f32, f16, bf16";
  if (scheme == nullptr || scheme->variants == nullptr) return out;
  for (const std::string_view name : scheme->variants->names) out += cat(", ", name);
  return out;
}

bool all_zero(const View& view) {
  for (std::int64_t i = 0; i < view.count(); ++i) {
    if (view.at(i) != 0) return false;
  }
  return true;
}

bool same_bytes(const View& a, const View& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

/// [rows, cols] floats as the tensor of a plain checkpoint.
Tensor as_weight(const std::vector<float>& values, LinearSize size, DType dtype, bool transposed_form,
                 const std::string& module) {
  Tensor out(transposed_form ? Shape{size.cols, size.rows} : Shape{size.rows, size.cols}, dtype);
  for (std::int64_t r = 0; r < size.rows; ++r) {
    const float* row = values.data() + r * size.cols;
    for (std::int64_t k = 0; k < size.cols; ++k) {
      if (std::isfinite(row[k]) && !std::isfinite(round_to(dtype, row[k]))) {
        throw bad_input(printable(module), ": the value ", row[k], " is no ", name_of(dtype),
                        "; choose --to bf16 or f32");
      }
      if (transposed_form) store_from_f32(dtype, out.data(), k * size.rows + r, row[k]);
    }
    if (!transposed_form)
      convert_from_f32(dtype, row, out.data() + r * size.cols * static_cast<std::int64_t>(size_of(dtype)), size.cols);
  }
  return out;
}

Tensor cast_floats(const TensorEntry& entry, DType dtype) {
  const std::vector<float> values = entry.view.to_f32();
  Tensor out(entry.view.shape(), dtype);
  convert_from_f32(dtype, values.data(), out.data(), out.count());
  for (std::int64_t i = 0; i < out.count(); ++i) {
    if (std::isfinite(values[static_cast<std::size_t>(i)]) && !std::isfinite(out.view().at(i))) {
      throw quant::wrong_tensor(entry, "the value ", values[static_cast<std::size_t>(i)], " is no ", name_of(dtype));
    }
  }
  return out;
}

class Converter {
 public:
  Converter(std::shared_ptr<const Checkpoint> source, const ConvertOptions& options, Exec& exec,
            const ProgressCallback& progress)
      : checkpoint_(std::move(source)), options_(options), exec_(exec), progress_(progress), store_(checkpoint_) {
    choose_target();
    group_tensors();
  }

  ConvertReport run() {
    plan();
    write();
    try {
      verify();
    } catch (const Error&) {  // without these files it is no model
      std::error_code ignored;
      for (const char* name : {"model.safetensors", "model.safetensors.index.json"})
        fs::remove(options_.out / name, ignored);
      throw;
    }
    return report_;
  }

 private:
  /// A tensor to copy (or cast), or a quantized module.
  struct Item {
    const TensorEntry* entry = nullptr;
    std::string module;
  };

  void choose_target() {
    const Scheme* scheme = store_.scheme();
    report_.scheme = scheme == nullptr ? "" : std::string(scheme->name);
    const std::string& to = options_.to;
    if (to == "f32" || to == "f16" || to == "bf16") {
      floats_ = dtype_from_name(to);
      report_.to = to;
      return;
    }
    const SchemeVariants* variants = scheme == nullptr ? nullptr : scheme->variants;
    const bool known =
        variants != nullptr && std::find(variants->names.begin(), variants->names.end(), to) != variants->names.end();
    if (to != "same" && !known) {
      throw bad_input("--to ", printable(to, 40), ": this checkpoint (",
                      scheme == nullptr ? "plain floats" : scheme->name, ") can become ", known_targets(scheme));
    }
    if (scheme != nullptr && scheme->store == nullptr)
      throw bad_input(scheme->name, ": nibble cannot write this format");
    if (known) variant_ = to;
    report_.to = cat(scheme == nullptr ? "plain floats" : scheme->name, known ? " " : "", known ? to : "");
  }

  void group_tensors() {
    std::vector<std::string> modules;
    if (store_.reader() != nullptr) modules = store_.reader()->modules();
    report_.modules = static_cast<std::int64_t>(modules.size());
    const TensorEntry* const end = checkpoint_->tensors().data() + checkpoint_->tensors().size();
    std::map<const TensorEntry*, std::string> owner;
    for (const std::string& module : modules) {
      for (const TensorEntry& entry : quant::tensors_below(*checkpoint_, module + ".")) {
        std::string& current = owner[&entry];
        if (current.size() < module.size()) current = module;
      }
    }
    std::string last;
    for (const TensorEntry* entry = checkpoint_->tensors().data(); entry != end; ++entry) {
      report_.bytes_in += static_cast<std::int64_t>(entry->view.size_bytes());
      const auto found = owner.find(entry);
      if (found == owner.end()) {
        if (!entry->raw_dtype.empty()) {
          throw quant::wrong_tensor(*entry, "dtype ", printable(entry->raw_dtype), " cannot be written back");
        }
        if (floats_ && store_.scheme() != nullptr && entry->name.ends_with(".scales")) {
          throw quant::wrong_tensor(*entry, "scales of an activation have no place in plain floats");
        }
        items_.push_back({entry, ""});
      } else if (found->second != last) {
        const auto done =
            std::any_of(items_.begin(), items_.end(), [&](const Item& item) { return item.module == found->second; });
        if (!done) items_.push_back({nullptr, found->second});
      }
      last = found == owner.end() ? "" : found->second;
    }
  }

  LinearSize size_of_module(const std::string& module) const {
    return options_.size_of ? options_.size_of(module) : LinearSize{};
  }

  /// The weight as it will be stored.
  LinearWeights load(const std::string& module) {
    LinearWeights linear = store_.linear(module, exec_, size_of_module(module));
    if (!variant_.empty()) linear = store_.scheme()->variants->rewrite(module, linear, variant_);
    return linear;
  }

  static std::vector<float> values_of(const QTensor& w, Exec& exec) {
    std::vector<float> values(static_cast<std::size_t>(w.rows * w.cols));
    exec.target = Target::ref;  // the bits of the scheme's own library
    decode(w, 0, w.rows, values.data(), exec);
    return values;
  }

  std::vector<StoredTensor> floats_of(const std::string& module) {
    const LinearWeights linear = load(module);
    const QTensor& w = linear.weight;
    const bool transposed_form = options_.transposed && options_.transposed(module);
    std::vector<StoredTensor> out;
    if (linear.bias && !all_zero(*linear.bias)) {  // some writers add zeros to every linear
      const std::vector<float> bias = linear.bias->to_f32();
      out.push_back({module + ".bias", as_weight(bias, {1, w.rows}, *floats_, false, module)});
      out.back().tensor = Tensor(out.back().tensor.view().reshaped({w.rows}));
    }
    out.push_back(
        {module + ".weight", as_weight(values_of(w, exec_), {w.rows, w.cols}, *floats_, transposed_form, module)});
    return out;
  }

  std::vector<StoredTensor> tensors_of(const Item& item) {
    if (!item.module.empty()) {
      if (floats_) return floats_of(item.module);
      return store_.scheme()->store(item.module, load(item.module), exec_);
    }
    return {{item.entry->name, cast_floats(*item.entry, *floats_)}};
  }

  bool is_cast(const Item& item) const {
    if (item.entry == nullptr || !floats_) return false;
    const DType dtype = item.entry->view.dtype();
    return dtype != *floats_ && (dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16);
  }
  bool is_copy(const Item& item) const { return item.entry != nullptr && !is_cast(item); }

  void report(std::string_view task, std::size_t done) const {
    if (!progress_) return;
    const Item& item = items_[done];
    progress_({task, item.module.empty() ? item.entry->name : item.module, static_cast<std::int64_t>(done),
               static_cast<std::int64_t>(items_.size())});
  }

  void plan() {
    for (std::size_t i = 0; i < items_.size(); ++i) {
      report("planning", i);
      const Item& item = items_[i];
      if (item.entry != nullptr) {
        plan_.push_back(
            {item.entry->name, is_cast(item) ? *floats_ : item.entry->view.dtype(), item.entry->view.shape()});
        continue;
      }
      for (const StoredTensor& tensor : tensors_of(item))
        plan_.push_back({tensor.name, tensor.tensor.dtype(), tensor.tensor.shape()});
    }
    report_.tensors = static_cast<std::int64_t>(plan_.size());
    for (const TensorPlan& tensor : plan_) {
      report_.bytes_out += count_of(tensor.shape) * static_cast<std::int64_t>(size_of(tensor.dtype));
    }
  }

  /// A config file with what this conversion changes.
  Json edited(Json config, bool is_own_file) const {
    if (!config.is_object()) return config;
    if (floats_) {
      for (const char* key : {"quantization_config", "compression_config"}) config.erase(key);
      for (const char* key : {"torch_dtype", "dtype"}) {
        if (config.get(key) != nullptr) config.set(key, torch_name(*floats_));
      }
      if (config.get("dtype") == nullptr) config.set("torch_dtype", torch_name(*floats_));
      return config;
    }
    if (variant_.empty() || report_.modules == 0) return config;
    const QTensor& example = example_;
    const auto edit = store_.scheme()->variants->edit_config;
    if (is_own_file) {
      edit(config, variant_, example);
      return config;
    }
    const Json* declared = config.get("quantization_config");
    Json quantization = declared != nullptr ? *declared : Json(Json::Object{});
    edit(quantization, variant_, example);
    config.set("quantization_config", std::move(quantization));
    return config;
  }

  void add_files(CheckpointWriter& writer) {
    for (SideFile& file : read_side_files(checkpoint_->folder())) {
      const bool own = file.name == "quantize_config.json" || file.name == "quant_config.json";
      if (floats_ && (own || file.name == "quanto_qmap.json")) continue;
      if (own && !variant_.empty()) file.content = edited(Json::parse(file.content, file.name), true).dump(2) + "\n";
      writer.add_file(file.name, std::move(file.content));
    }
    const Json config = edited(checkpoint_->config(), false);
    if (!config.is_null()) writer.add_file("config.json", config.dump(2) + "\n");
  }

  void write() {
    check_output_folder(checkpoint_->folder(), options_.out, options_.force);
    WriterOptions writing;
    writing.max_shard_bytes = options_.max_shard_bytes;
    CheckpointWriter writer(options_.out, plan_, writing);
    for (std::size_t i = 0; i < items_.size(); ++i) {
      report("writing", i);
      const Item& item = items_[i];
      if (is_copy(item)) {
        writer.write(item.entry->name, item.entry->view.bytes());
        continue;
      }
      if (!variant_.empty() && example_.empty()) example_ = load(item.module).weight;
      for (const StoredTensor& tensor : tensors_of(item)) writer.write(tensor.name, tensor.tensor.view().bytes());
    }
    add_files(writer);
    writer.commit();
  }

  [[noreturn]] void differs(const std::string& name) const {
    throw runtime_failure(options_.out.string(), ": ", printable(name), " reads back other than it was written");
  }

  /// Counts what the new form of a weight changes.
  void compare_values(const Item& item, const std::vector<float>& written) {
    const std::vector<float> before =
        values_of(store_.linear(item.module, exec_, size_of_module(item.module)).weight, exec_);
    if (before.size() != written.size()) differs(item.module);
    report_.values += static_cast<std::int64_t>(before.size());
    for (std::size_t i = 0; i < before.size(); ++i) {
      if (before[i] == written[i]) continue;
      ++report_.changed;
      report_.largest_change = std::max(report_.largest_change, std::abs(double{before[i]} - double{written[i]}));
    }
  }

  std::vector<float> read_back(const WeightStore& written, const Item& item) {
    const LinearSize size = size_of_module(item.module);
    if (!floats_) return values_of(written.linear(item.module, exec_, size).weight, exec_);
    const View& weight = written.at(item.module + ".weight");
    std::vector<float> values = weight.to_f32();
    if (!options_.transposed || !options_.transposed(item.module)) return values;
    const std::int64_t cols = weight.dim(0), rows = weight.dim(1);
    std::vector<float> by_row(values.size());
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t k = 0; k < cols; ++k)
        by_row[static_cast<std::size_t>(r * cols + k)] = values[static_cast<std::size_t>(k * rows + r)];
    }
    return by_row;
  }

  void verify() {
    const WeightStore written(Checkpoint::open(options_.out.string()));
    if (floats_ ? written.scheme() != nullptr : written.scheme() != store_.scheme()) differs("the scheme");
    for (std::size_t i = 0; i < items_.size(); ++i) {
      report("checking", i);
      const Item& item = items_[i];
      std::vector<StoredTensor> stored;
      if (!is_copy(item)) stored = tensors_of(item);
      const auto check_tensor = [&](const std::string& name, const View& view) {
        const View* copy = written.find(name);
        if (copy == nullptr || !same_bytes(*copy, view)) differs("tensor " + name);
        const TensorEntry* original = checkpoint_->find(name);
        if (original != nullptr && same_bytes(original->view, view)) ++report_.same_tensors;
      };
      if (is_copy(item)) check_tensor(item.entry->name, item.entry->view);
      for (const StoredTensor& tensor : stored) check_tensor(tensor.name, tensor.tensor);
      if (!item.module.empty()) compare_values(item, read_back(written, item));
    }
    const bool may_round = floats_ || report_.scheme == "awq";
    if (report_.changed != 0 && !may_round) differs(cat(report_.changed, " values of quantized weights"));
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  const ConvertOptions& options_;
  Exec& exec_;
  const ProgressCallback& progress_;
  WeightStore store_;
  std::optional<DType> floats_;
  std::string variant_;
  QTensor example_;
  std::vector<Item> items_;
  std::vector<TensorPlan> plan_;
  ConvertReport report_;
};

}  // namespace

ConvertReport convert_checkpoint(std::shared_ptr<const Checkpoint> source, const ConvertOptions& options, Exec& exec,
                                 const ProgressCallback& progress) {
  check_output_folder(source->folder(), options.out, options.force);
  return Converter(std::move(source), options, exec, progress).run();
}

}  // namespace nibble
