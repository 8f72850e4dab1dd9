#include "quant/quantize_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "quant/scheme.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

/// What the process holds besides weights: program, libraries, JSON, names.
constexpr std::int64_t kBaseBytes = std::int64_t{64} << 20;
constexpr std::int64_t kLargestSideFile = std::int64_t{256} << 20;

std::int64_t bytes_of(const TensorPlan& tensor) {
  const auto size = static_cast<std::int64_t>(size_of(tensor.dtype));
  return count_of(tensor.shape, size_of(tensor.dtype)) * size;
}

void refuse_quantized(const Checkpoint& source) {
  for (const Scheme* scheme : all_schemes()) {
    if (scheme->claims(source)) {
      throw bad_input(source.folder().string(), ": already quantized (", scheme->name, "); start from the float model");
    }
  }
  for (const char* key : {"quantization_config", "compression_config"}) {
    if (source.config().get(key) != nullptr) {
      throw bad_input(source.folder().string(), "/config.json: has a ", key, ": start from the float model");
    }
  }
}

PlannedTensor copy_of(const TensorEntry& entry) {
  if (!entry.raw_dtype.empty()) {
    throw bad_input(entry.file.string(), ": tensor ", printable(entry.name), ": dtype ", printable(entry.raw_dtype),
                    " cannot be written back");
  }
  PlannedTensor planned;
  planned.source = &entry;
  planned.outputs = {{entry.name, entry.view.dtype(), entry.view.shape()}};
  planned.bytes_in = planned.bytes_out = static_cast<std::int64_t>(entry.view.size_bytes());
  return planned;
}

PlannedTensor quantized(const SelectedModule& module, const ModuleQuantizer& quantizer) {
  const View& view = module.weight->view;
  PlannedTensor planned;
  planned.source = module.weight;
  planned.module = module.name;
  planned.scheme = quantizer.describe(module.name, view.shape(), view.dtype());
  planned.outputs = quantizer.outputs(module.name, view.shape(), view.dtype());
  planned.bytes_in = static_cast<std::int64_t>(view.size_bytes());
  for (const TensorPlan& tensor : planned.outputs) planned.bytes_out += bytes_of(tensor);
  return planned;
}

void add_totals(QuantizationPlan& plan, const ModuleQuantizer& quantizer, int threads) {
  std::int64_t largest = 0;
  std::map<std::string, int> notes;
  for (const PlannedTensor& tensor : plan.tensors) {
    const View& view = tensor.source->view;
    plan.bytes_out += tensor.bytes_out;
    std::int64_t held = tensor.bytes_in + tensor.bytes_out;
    if (!tensor.module.empty()) {
      plan.quantized += view.count();
      plan.quantized_bytes += tensor.bytes_out;
      held = tensor.bytes_in + quantizer.working_bytes(tensor.module, view.shape(), view.dtype(), threads);
      const std::string note = quantizer.note(tensor.module, view.shape(), view.dtype());
      if (!note.empty()) ++notes[note];
    }
    largest = std::max(largest, held);
  }
  plan.peak_bytes = kBaseBytes + largest;
  for (const auto& [note, count] : notes)
    plan.notes.push_back(cat(count, count == 1 ? " module" : " modules", ": ", note));
}

/// config.json with what quantizing changes; where that is nothing, the file as it is.
std::string config_text(const Checkpoint& source, const fs::path& file, const QuantizationPlan& plan) {
  if (!plan.unties && !plan.quantization_config && source.config() == Json::read(file)) return read_file(file);
  return quantized_config(source.config(), plan).dump(2) + "\n";
}

bool is_side_file(const fs::directory_entry& entry) {
  static const std::set<std::string> weights{".safetensors", ".bin",  ".pt",   ".pth", ".gguf",    ".h5",
                                             ".msgpack",     ".onnx", ".ckpt", ".npz", ".partial", ".ot"};
  const std::string name = entry.path().filename().string();
  constexpr std::string_view index = ".index.json";
  const bool is_index = name.size() > index.size() && name.substr(name.size() - index.size()) == index;
  std::error_code failed;
  return name.front() != '.' && !is_index && !weights.contains(entry.path().extension().string()) &&
         entry.is_regular_file(failed) && !failed &&
         entry.file_size(failed) <= static_cast<std::uintmax_t>(kLargestSideFile) && !failed;
}

void add_side_files(CheckpointWriter& writer, const Checkpoint& source, const QuantizationPlan& plan,
                    const ModuleQuantizer& quantizer) {
  std::error_code failed;
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(source.folder(), failed)) {
    if (is_side_file(entry)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    const std::string name = file.filename().string();
    writer.add_file(name, name == "config.json" ? config_text(source, file, plan) : read_file(file));
  }
  for (auto& [name, content] : quantizer.side_files(plan.modules)) writer.add_file(name, content);
}

void report(const ProgressCallback& progress, std::string_view task, const PlannedTensor& tensor, std::int64_t done,
            std::int64_t total) {
  if (progress) progress({task, tensor.module.empty() ? tensor.source->name : tensor.module, done, total});
}

/// What is written for a tensor that is not quantized.
const View& written_for(const TensorEntry& source, const ModuleQuantizer& quantizer) {
  const Tensor* replaced = quantizer.replacement(source.name);
  if (replaced == nullptr) return source.view;
  check(replaced->shape() == source.view.shape() && replaced->dtype() == source.view.dtype(),
        "quantize_checkpoint: a tensor is replaced by one of another kind");
  return replaced->view();
}

void write_tensors(CheckpointWriter& writer, const Checkpoint& source, const QuantizationPlan& plan,
                   ModuleQuantizer& quantizer, ThreadPool& pool, const ProgressCallback& progress) {
  std::int64_t done = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    report(progress, "quantizing", tensor, done, plan.bytes_in);
    if (tensor.module.empty()) {
      writer.write(tensor.source->name, written_for(*tensor.source, quantizer).bytes());
    } else {
      quantizer.quantize(tensor.module, *tensor.source, pool,
                         [&](const std::string& name, std::span<const std::byte> bytes) { writer.write(name, bytes); });
    }
    source.release(tensor.source->view);
    done += tensor.bytes_in;
  }
}

void verify_copy(const Checkpoint& written, const std::string& name, const View& source) {
  const TensorEntry* copy = written.find(name);
  if (copy == nullptr || copy->view.shape() != source.shape() || copy->view.dtype() != source.dtype() ||
      std::memcmp(copy->view.data(), source.data(), source.size_bytes()) != 0) {
    throw runtime_failure(written.folder().string(), ": tensor ", printable(name),
                          " reads back other than it was written");
  }
  written.release(copy->view);
}

QuantizationError verify(const fs::path& out, const Checkpoint& source, const QuantizationPlan& plan,
                         ModuleQuantizer& quantizer, ThreadPool& pool, const ProgressCallback& progress) {
  const std::shared_ptr<const Checkpoint> written = Checkpoint::open(out.string());
  quantizer.open_result(written);
  QuantizationError error;
  std::int64_t done = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    report(progress, "checking", tensor, done, plan.bytes_in);
    if (tensor.module.empty()) {
      verify_copy(*written, tensor.source->name, written_for(*tensor.source, quantizer));
    } else {
      error.add(quantizer.verify(tensor.module, *tensor.source, pool));
    }
    for (const TensorPlan& output : tensor.outputs) {
      if (const TensorEntry* entry = written->find(output.name)) written->release(entry->view);
    }
    source.release(tensor.source->view);
    done += tensor.bytes_in;
  }
  return error;
}

/// Takes back a result that failed its check: without these files it is no model.
void withdraw(const fs::path& out) {
  std::error_code ignored;
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) fs::remove(out / name, ignored);
}

}  // namespace

void QuantizationError::add(const QuantizationError& other) {
  largest = std::max(largest, other.largest);
  squared_error += other.squared_error;
  squared_weights += other.squared_weights;
}

double QuantizationError::relative() const {
  return squared_weights > 0 ? std::sqrt(squared_error / squared_weights) : 0;
}

Json quantized_config(const Json& source, const QuantizationPlan& plan) {
  Json config = source;
  if (plan.unties) config.set("tie_word_embeddings", false);
  if (!plan.quantization_config) return config;
  if (config.is_null()) config = Json::Object{};
  // Transformers writes its keys in alphabetical order; the new one takes its place among them.
  Json::Object& members = config.object("config.json");
  const auto place = std::find_if(members.begin(), members.end(),
                                  [](const Json::Member& member) { return member.first > "quantization_config"; });
  members.emplace(place, "quantization_config", *plan.quantization_config);
  return config;
}

std::vector<TensorPlan> ModuleQuantizer::exact_outputs(const std::string& module, const TensorEntry& weight,
                                                       ThreadPool&) const {
  return outputs(module, weight.view.shape(), weight.view.dtype());
}

const Tensor* ModuleQuantizer::replacement(std::string_view) const { return nullptr; }

std::vector<std::pair<std::string, std::string>> ModuleQuantizer::side_files(std::span<const std::string>) const {
  return {};
}

std::optional<Json> ModuleQuantizer::quantization_config(const SelectionResult&) const { return std::nullopt; }

double QuantizationPlan::bits_per_weight() const {
  return quantized == 0 ? 0 : 8.0 * static_cast<double>(quantized_bytes) / static_cast<double>(quantized);
}

QuantizationPlan plan_quantization(const Checkpoint& source, const ModuleQuantizer& quantizer,
                                   const ModuleSelection& selection, int threads) {
  refuse_quantized(source);
  SelectionResult selected = select_modules(source, selection);
  QuantizationPlan plan;
  plan.notes = std::move(selected.notes);
  plan.quantization_config = quantizer.quantization_config(selected);
  std::map<std::string_view, const SelectedModule*> by_tensor;
  for (const SelectedModule& module : selected.modules) {
    plan.modules.push_back(module.name);
    if (!module.tied) by_tensor.emplace(module.weight->name, &module);
  }
  for (const TensorEntry& entry : source.tensors()) {
    const auto found = by_tensor.find(entry.name);
    plan.tensors.push_back(found == by_tensor.end() ? copy_of(entry) : quantized(*found->second, quantizer));
    plan.parameters += entry.view.count();
    plan.bytes_in += static_cast<std::int64_t>(entry.view.size_bytes());
  }
  for (const SelectedModule& module : selected.modules) {
    const bool head = module.name == "lm_head";
    const Json* tied = source.config().get("tie_word_embeddings");
    if (head && (tied == nullptr || !tied->is_bool() || tied->boolean("tie_word_embeddings"))) plan.unties = true;
    if (module.tied) plan.tensors.push_back(quantized(module, quantizer));
  }
  add_totals(plan, quantizer, threads);
  return plan;
}

void check_output_folder(const fs::path& source, const fs::path& out, bool force) {
  std::error_code failed;
  if (!fs::exists(out, failed)) return;
  if (fs::equivalent(source, out, failed))
    throw bad_input(out.string(), ": is the source itself; choose another folder");
  if (!fs::is_directory(out, failed)) throw bad_input(out.string(), ": is not a folder");
  if (force) return;
  for (const fs::directory_entry& entry : fs::directory_iterator(out, failed)) {
    if (entry.path().extension() != ".partial") {
      throw bad_input(out.string(), ": is not empty (", entry.path().filename().string(),
                      "); --force replaces the model in it");
    }
  }
}

QuantizationError quantize_checkpoint(const Checkpoint& source, const QuantizationPlan& plan,
                                      ModuleQuantizer& quantizer, const QuantizeOptions& options, ThreadPool& pool,
                                      const ProgressCallback& progress) {
  check_output_folder(source.folder(), options.out, options.force);
  std::vector<TensorPlan> outputs;
  for (const PlannedTensor& tensor : plan.tensors) {
    const std::vector<TensorPlan> exact =
        tensor.module.empty() ? tensor.outputs : quantizer.exact_outputs(tensor.module, *tensor.source, pool);
    outputs.insert(outputs.end(), exact.begin(), exact.end());
  }
  WriterOptions writing;
  writing.max_shard_bytes = options.max_shard_bytes;
  writing.metadata = options.metadata;
  {
    CheckpointWriter writer(options.out, std::move(outputs), writing);
    write_tensors(writer, source, plan, quantizer, pool, progress);
    add_side_files(writer, source, plan, quantizer);
    for (const auto& [name, content] : options.files) writer.add_file(name, content);
    writer.commit();
  }
  try {
    return verify(options.out, source, plan, quantizer, pool, progress);
  } catch (const Error&) {
    withdraw(options.out);
    throw;
  }
}

}  // namespace nibble
