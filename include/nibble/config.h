// The quantization configs of Transformers, field by field under their names there, and the other types that
// from_pretrained's options are made of. A config says how to quantize a float checkpoint while it loads; given for a
// checkpoint that is quantized already, its loading attributes (marked "loading") replace those of the file and the
// rest is ignored, with a line in PreTrainedModel::notes(). Fields that choose a GPU kernel are checked and change
// nothing: nibble computes the same for every variant. What they are checked for: see each field.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "nibble/tokenizer.h"

namespace nibble {

/// Quanto's linear quantization. Weights of linear layers are quantized while the model loads.
struct QuantoConfig {
  std::string weights = "int8";              ///< int8, int4, int2, float8 (e4m3fn), float8_e5m2, float8_e4m3fnuz
  std::optional<std::string> activations{};  ///< not while loading: activations need calibration (`nibble quantize`)
  std::optional<std::vector<std::string>> modules_to_not_convert{};  ///< default: the output head, lm_head
};

/// ExLlama's kernels: they have no twin here.
struct ExllamaConfig {
  int version = 1;  ///< 1 or 2
  std::optional<std::int64_t> max_input_len{}, max_batch_size{};
};

/// Text to calibrate on: the texts themselves; a file (.txt, .jsonl, .json); "builtin", a small text of nibble's own;
/// or the name of a data set ("c4", "wikitext2", ...) that lies at the config's dataset_path, for nibble has no
/// network.
using CalibrationDataset = std::variant<std::monostate, std::string, std::vector<std::string>>;

/// The tokenizer that prepares it: the model's own, that of another model, or one that is loaded.
using CalibrationTokenizer = std::variant<std::monostate, std::string, PreTrainedTokenizer>;

/// GPTQ. A float checkpoint needs `dataset`, and the tokenizer is the model's own unless one is given.
struct GPTQConfig {
  int bits = 4;  ///< 2, 3, 4 or 8
  CalibrationDataset dataset{};
  std::string dataset_path{};  ///< nibble's own: the file or folder of a data set by name
  CalibrationTokenizer tokenizer{};
  std::int64_t group_size = 128;  ///< inputs per group; -1: all
  double damp_percent = 0.1;      ///< above 0, below 1
  bool desc_act = false;
  bool sym = true;
  bool true_sequential = true;
  bool use_cuda_fp16 = false;                  ///< loading; changes nothing
  std::optional<std::int64_t> model_seqlen{};  ///< tokens per calibration sequence; default: 2048 or the context
  std::optional<std::string> block_name_to_quantize{};  ///< "model.layers": must be the model's own
  std::optional<std::vector<std::string>> module_name_preceding_first_block{};  ///< must be modules of the model
  std::int64_t batch_size = 1;                                                  ///< at least 1; changes nothing
  std::optional<std::int32_t> pad_token_id{};      ///< changes nothing: sequences are never padded
  std::optional<bool> use_exllama{};               ///< loading; changes nothing
  std::optional<std::int64_t> max_input_length{};  ///< loading; changes nothing
  std::optional<ExllamaConfig> exllama_config{};   ///< loading; changes nothing; 4 bits only, as in Transformers
  bool cache_block_outputs = true;                 ///< changes nothing
  std::optional<std::vector<std::vector<std::string>>> modules_in_block_to_quantize{};  ///< default: all linears
};

/// Which modules AWQ's fused kernels replace. Nothing is fused here (linears of one input share it anyway), but a map
/// that does not fit the model is an error, as there.
struct FusedModules {
  std::vector<std::string> attention{};  ///< query, key, value, output projection
  std::vector<std::string> layernorm{};
  std::vector<std::string> mlp{};  ///< gate, up, down projection
  bool use_alibi = false;
  std::int64_t num_attention_heads = 0, num_key_value_heads = 0, hidden_size = 0;
};

/// AWQ. Transformers takes it for checkpoints that are quantized already; here it also quantizes a float checkpoint,
/// which needs `dataset`: with zero points, into the tensors that version and backend stand for.
struct AwqConfig {
  int bits = 4;                   ///< 4
  std::int64_t group_size = 128;  ///< inputs per group; -1: all
  bool zero_point = true;
  std::string version = "gemm";  ///< loading; gemm, gemv, gemv_fast, exllama, ipex; how files lie, they say themselves
  std::string backend = "autoawq";                 ///< autoawq or llm-awq
  std::optional<bool> do_fuse{};                   ///< loading; default: whether modules_to_fuse is given
  std::optional<std::int64_t> fuse_max_seq_len{};  ///< loading; needed with do_fuse
  std::optional<FusedModules> modules_to_fuse{};   ///< loading
  std::optional<std::vector<std::string>> modules_to_not_convert{};
  std::optional<ExllamaConfig> exllama_config{};  ///< loading
  // nibble's own, for float checkpoints, as in GPTQConfig
  CalibrationDataset dataset{};
  std::string dataset_path{};
  CalibrationTokenizer tokenizer{};
  std::optional<std::int64_t> model_seqlen{};  ///< tokens per calibration sequence; default: 512 or the context
};

/// AQLM. Transformers takes it for checkpoints that are quantized already; here it also quantizes a float checkpoint,
/// which needs `dataset` and an out_group_size of 1. The default, one codebook of 2^16 words, is for weights from about
/// 4096 x 4096 on, and takes long.
struct AqlmConfig {
  std::int64_t in_group_size = 8, out_group_size = 1, num_codebooks = 1, nbits_per_codebook = 16;
  /// Names of modules, with or without ".weight".
  std::optional<std::vector<std::string>> linear_weights_not_to_quantize{};
  // nibble's own, for float checkpoints, as in GPTQConfig
  CalibrationDataset dataset{};
  std::string dataset_path{};
  CalibrationTokenizer tokenizer{};
  std::optional<std::int64_t> model_seqlen{};  ///< tokens per calibration sequence; default: 2048 or the context
  std::string preset = "standard";             ///< how long to search: fast, standard or best
};

/// bitsandbytes: LLM.int8() and the 4-bit types NF4 and FP4. Neither load_in_8bit nor load_in_4bit set: 8 bits, which
/// is what Transformers' guide means by a config of llm_int8_* fields alone.
struct BitsAndBytesConfig {
  bool load_in_8bit = false;
  bool load_in_4bit = false;
  std::optional<double>
      llm_int8_threshold{};  ///< loading; 0 to 65504, default 6; inputs at least this large stay floats
  std::optional<std::vector<std::string>> llm_int8_skip_modules{};  ///< default: the output head
  bool llm_int8_enable_fp32_cpu_offload = false;        ///< modules that a device_map gives to "cpu" stay in floats
  bool llm_int8_has_fp16_weight = false;                ///< for training in 16 bits: refused
  std::optional<std::string> bnb_4bit_compute_dtype{};  ///< loading; arithmetic: float32, bfloat16, float16; default:
                                                        ///< that of PretrainedOptions::torch_dtype
  std::string bnb_4bit_quant_type = "fp4";              ///< fp4 or nf4
  bool bnb_4bit_use_double_quant = false;
  std::string bnb_4bit_quant_storage = "uint8";  ///< dtype of the tensors that hold the codes
};

using QuantizationConfig = std::variant<QuantoConfig, GPTQConfig, AwqConfig, AqlmConfig, BitsAndBytesConfig>;

/// A device as Transformers names them: a number (0: the first accelerator) or "cpu", ... Here all memory and all cores
/// are the machine's own, so a number means the default device, cpu.
struct Device {
  Device(int number) : name(std::to_string(number)) {}
  Device(const char* text) : name(text) {}
  Device(std::string text) : name(std::move(text)) {}
  std::string name{};
  bool operator<(const Device& other) const { return name < other.name; }
  bool operator==(const Device& other) const = default;
};

/// "auto" and "cpu" (or a number): this machine's cores; "ref": slow scalar arithmetic, the same results. Or a device
/// for every module, by prefixes of module names, the longest that fits: {{"transformer.h", 0}, {"lm_head", "cpu"}}.
class DeviceMap {
 public:
  using Modules = std::map<std::string, Device>;
  DeviceMap() : DeviceMap("auto") {}
  DeviceMap(int number) : device_(number) {}
  DeviceMap(const char* name) : device_(name) {}
  DeviceMap(std::string name) : device_(std::move(name)) {}
  DeviceMap(Modules modules) : device_("auto"), modules_(std::move(modules)) {}
  DeviceMap(std::initializer_list<std::pair<const std::string, Device>> modules)
      : device_("auto"), modules_(Modules(modules)) {}

  const Device& device() const { return device_; }
  const std::optional<Modules>& modules() const { return modules_; }

 private:
  Device device_;
  std::optional<Modules> modules_;
};

/// Sizes ("30GiB", "500MB") by device: {{0, "30GiB"}, {"cpu", "30GiB"}}.
using MaxMemory = std::map<Device, std::string>;

}  // namespace nibble
