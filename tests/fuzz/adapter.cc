// A LoRA adapter of any bytes meets a small base: it is bound and merged in memory, or refused by one line. The input
// is a length (4 bytes, little-endian), adapter_config.json of that length, and adapter_model.safetensors (or .bin).
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "fuzz/fuzz_file.h"
#include "nn/linear.h"
#include "run/adapter/bind.h"

namespace {

constexpr const char* kConfig = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
  "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10,
  "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "tie_word_embeddings": true})";

/// A Llama of one layer with tied embeddings.
std::shared_ptr<const nibble::Checkpoint> make_base() {
  nibble::CheckpointParts parts;
  const auto owner = std::make_shared<std::vector<nibble::Tensor>>();
  const auto add = [&](const std::string& name, nibble::Shape shape) {
    nibble::Tensor tensor(std::move(shape), nibble::DType::f32);
    for (float& value : tensor.as<float>()) value = 0.25f;
    parts.tensors.push_back({name, tensor.view(), "model.safetensors", {}});
    owner->push_back(std::move(tensor));
  };
  const std::string layer = "model.layers.0.";
  add("model.embed_tokens.weight", {10, 8});
  add("model.norm.weight", {8});
  for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) add(layer + norm + ".weight", {8});
  add(layer + "self_attn.q_proj.weight", {8, 8});
  for (const char* name : {"k_proj", "v_proj"}) add(layer + "self_attn." + name + ".weight", {4, 8});
  add(layer + "self_attn.o_proj.weight", {8, 8});
  for (const char* name : {"gate_proj", "up_proj"}) add(layer + "mlp." + name + ".weight", {12, 8});
  add(layer + "mlp.down_proj.weight", {8, 12});
  parts.config = nibble::Json::parse(kConfig, "config.json");
  parts.folder = "base";
  parts.owner = owner;
  return nibble::Checkpoint::in_memory(std::move(parts));
}

std::filesystem::path make_folder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "nibble-fuzz-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) __builtin_trap();
  return pattern;
}

void save(const std::filesystem::path& file, const std::uint8_t* data, std::size_t size) {
  std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::shared_ptr<const nibble::Checkpoint> base = make_base();
  static const std::filesystem::path folder = make_folder();
  static nibble::ThreadPool pool(1);
  std::uint32_t length = 0;
  if (size < sizeof length) return 0;
  std::memcpy(&length, data, sizeof length);
  data += sizeof length;
  size -= sizeof length;
  if (length > size) return 0;
  save(folder / "adapter_config.json", data, length);
  save(folder / "adapter_model.safetensors", data + length, size - length);
  return nibble::fuzz::expect_answer([&] {
    nibble::Arena arena;
    nibble::Exec exec{nibble::Target::ref, pool, arena, nibble::DType::f32};
    const auto adapter = nibble::Adapter::open(folder.string());
    const std::vector<nibble::AdapterUse> uses{{adapter, 1}};
    const auto model = nibble::load_adapted(base, uses, {}, exec);
    for (const auto& [name, linear] : model->adapters()->linears) {
      for (const nibble::ModuleView& view : model->modules()) {
        if (view.linear == nullptr || view.linear->name != name) continue;
        std::vector<float> row(static_cast<std::size_t>(view.linear->inputs()));
        for (std::int64_t i = 0; i < view.linear->outputs(); ++i) linear.merge(i, 1, row.data());
      }
    }
    const std::vector<std::int32_t> ids{1, 2, 3};
    nibble::for_each_logits(*model, ids, exec, [](std::int64_t, std::int64_t, const float*) {});
  });
}
