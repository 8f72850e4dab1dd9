// What the quantize command is told, and the flags of its methods.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "calib/awq_calibration.h"
#include "calib/journal.h"
#include "cli/common.h"
#include "cli/progress_bar.h"
#include "cli/rotate.h"
#include "quant/aqlm/quantizer.h"
#include "quant/awq/quantizer.h"
#include "quant/gptq/quantizer.h"
#include "quant/quantize_checkpoint.h"
#include "quant/quanto/quantizer.h"
#include "quant/select_modules.h"
#include "quant/solved_quantizer.h"

namespace nibble::cli {

/// bitsandbytes: NF4, FP4 and LLM.int8.
struct BnbFlags {
  std::int64_t block = 64;
  bool double_quant = false;
  bool search_absmax = false;
  std::string quant_storage = "uint8";
  std::string compute_dtype = "float32";
  double threshold = 6;
  std::vector<std::string> skip_modules;
  // Names that people know from BitsAndBytesConfig
  bool load_in_4bit = false;
  bool load_in_8bit = false;
  std::string quant_type = "fp4";
};

struct GptqFlags {
  std::string algorithm = "gptq";
  std::string format = "gptq";
  int bits = 4;
  bool desc_act = false;
  bool asym = false;
  bool act_group_aware = true;
  bool static_groups = false;
  bool true_sequential = true;
  double damp = 0.01;
  double mse = 0;
  int refine = 0;
};

struct AqlmFlags {
  std::string shape = "2x8";
  std::int64_t in_group_size = 8;
  std::string preset = "standard";
  std::uint64_t seed = 0;
};

/// How a long job lives: what it does about what went wrong, now or in an earlier run.
struct JobFlags {
  bool resume = true;
  bool fallback = true;
  bool check_kl = false;  ///< asked for; methods that calibrate are checked without
  bool no_check_kl = false;
  std::string max_memory;           ///< "4GB"; empty: no limit
  bool spill = false;               ///< activations go to the disk, so that the limit holds
  std::int64_t remember_bytes = 0;  ///< found out: BlockTask's
  std::optional<double> max_kl;     ///< unset: suspicious_divergence()
  Json recipe;                      ///< every option that was given and decides bytes of the result
};

struct AwqFlags {
  std::string version = "gemm";
  std::string loss = "gram";
  bool duo = true;
  bool clip = true;
};

/// Settings module by module.
struct MixedFlags {
  std::string file;                  ///< a recipe (quant/common/module_recipe.h); empty: none
  std::optional<double> target_bpw;  ///< bits per weight that are spread over the modules
  std::vector<RecipeRule> chosen;    ///< what came of that; before the recipe's rules
  Json chosen_bits;                  ///< the same as {unit: bits}; null: nothing was chosen
};

struct QuantizeFlags {
  std::string model;
  std::string out;
  std::string method = "quanto";
  std::string weights = "int8";
  std::string activations = "none";
  std::string optimizer = "auto";
  std::int64_t group_size = 128;
  bool zero_point = false;
  bool exact_shift = false;
  BnbFlags bnb;
  GptqFlags gptq;
  AqlmFlags aqlm;
  JobFlags job;
  AwqFlags awq;
  RotateFlags rotation;
  MixedFlags mixed;
  ModuleSelection selection;
  std::string dataset;
  std::string dataset_path;
  std::int64_t samples = 128;
  std::int64_t seqlen = 512;
  double momentum = 0.9;
  double float_inputs = 0;  ///< of methods that solve block by block
  std::string max_shard_size = "5GB";
  bool force = false;
  bool dry_run = false;
  bool json = false;
  ComputeFlags compute;
  std::shared_ptr<const Checkpoint> original;  ///< the model as opened; what is quantized differs with --rotate
};

void add_gptq_flags(CLI::App& command, GptqFlags& flags);
gptq::QuantizerConfig gptq_config(const QuantizeFlags& flags);
/// The quantizer of --method gptq: its algorithm for the format that the flags name.
std::unique_ptr<SolvedQuantizer> grid_quantizer(const QuantizeFlags& flags);
using Sequences = std::vector<std::vector<std::int32_t>>;
/// The data that the flags name. Throws Error(bad_input) when they name none.
Sequences calibration_data(const QuantizeFlags& flags, const Checkpoint& source);
/// Says on stdout what the data is; fewer than `few` tokens are called little.
void print_data(const QuantizeFlags& flags, const Sequences& sequences, std::int64_t few);

/// Whether the model runs over calibration data: the method needs it, or the flags name some.
bool calibrates(const QuantizeFlags& flags, const SolvedQuantizer& quantizer);
void add_aqlm_flags(CLI::App& command, AqlmFlags& flags);
aqlm::QuantizerConfig aqlm_config(const QuantizeFlags& flags);
/// Adds to plan.peak_bytes what calibration holds. Where that is more than --max-memory, chooses to spill or leaves out
/// the check at the end, which is noted; throws Error(bad_input) with the numbers when that is not enough.
void plan_memory(QuantizeFlags& flags, QuantizationPlan& plan, std::shared_ptr<const Checkpoint> source,
                 const ModuleQuantizer& quantizer, Exec& exec);

/// A job that calibrates: its data, and the journal with which it goes on after it was killed.
struct CalibrationJob {
  Sequences sequences;
  Json identity;  ///< everything that decides the bytes of the result
  std::unique_ptr<Journal> journal;
};
/// Reads the data that the flags name, finds what an earlier run of the same job left, and says both on stdout; fewer
/// than `few` tokens are called little.
CalibrationJob start_job(const QuantizeFlags& flags, const Checkpoint& source, std::int64_t few,
                         QuantizeOptions& options, Exec& exec);
/// Adds to `options` what the output says of the job, before it is written.
void add_job_records(const QuantizeFlags& flags, CalibrationJob& job, QuantizeOptions& options);
/// The plan's modules but for the output head.
std::vector<std::string> modules_in_blocks(const QuantizationPlan& plan);

/// Adds --no-resume and its relatives.
void add_job_flags(CLI::App& command, JobFlags& flags);
/// Chooses codes for the plan's modules with the calibration data that the flags name, or takes those that an earlier
/// run of the same job has chosen; says on stdout what it did. Adds to `options` what belongs into the output. Finish
/// the journal when the output is written; it is null for a job that does not calibrate, which is short.
std::unique_ptr<Journal> calibrate_blocks(const QuantizeFlags& flags, const QuantizationPlan& plan,
                                          std::shared_ptr<const Checkpoint> source, SolvedQuantizer& quantizer,
                                          QuantizeOptions& options, Exec& exec, ProgressBar& bar);

/// What a dry run of a method that calibrates can say beyond the plan: time, disk, settings that waste either. Into
/// `json`, or on stdout.
void predict_job(const QuantizeFlags& flags, const QuantizationPlan& plan, std::shared_ptr<const Checkpoint> source,
                 SolvedQuantizer& quantizer, Exec& exec, Json& json);

/// Adds --check-kl and --max-kl.
void add_check_flags(CLI::App& command, JobFlags& flags);
/// Compares the written model with its source and says how far it is, on stdout or in `json`. Throws Error(runtime)
/// when that is further than flags allow.
void check_divergence(const QuantizeFlags& flags, const QuantizationPlan& plan,
                      std::shared_ptr<const Checkpoint> source, Exec& exec, ProgressBar& bar, Json& json);

void add_mixed_flags(CLI::App& command, MixedFlags& flags);
/// Reads the recipe that the flags name into flags.selection, and what it says into flags.job.recipe. Throws
/// Error(bad_input) when it cannot be read, or has settings though the method knows none per module.
void read_module_recipe(QuantizeFlags& flags);
/// Spreads the bits of --target-bpw over the modules, as their calibration data tells; says on stdout what it chose.
/// The choice goes into flags.mixed, flags.gptq.bits and flags.job.recipe. Throws Error(bad_input) when the method has
/// no bits to choose, or the target is too low.
void choose_bits(QuantizeFlags& flags, std::shared_ptr<const Checkpoint> source, Exec& exec);
/// Says in `notes` which modules of the plan cannot be fused by inference engines that would.
void note_torn_units(const QuantizationPlan& plan, const Checkpoint& source, std::vector<std::string>& notes);

void add_awq_flags(CLI::App& command, AwqFlags& flags);
/// The quantizer of AWQ; adds to flags.selection the linears that it can take.
std::unique_ptr<awq::Quantizer> awq_quantizer(QuantizeFlags& flags, std::shared_ptr<const Checkpoint> source,
                                              Exec& exec);
/// Memory of AWQ's Gram matrices.
std::int64_t awq_gram_bytes(std::shared_ptr<const Checkpoint> source, Exec& exec);
/// --awq-loss.
AwqLoss awq_loss(const QuantizeFlags& flags);
/// As calibrate_blocks().
std::unique_ptr<Journal> calibrate_awq(const QuantizeFlags& flags, const QuantizationPlan& plan,
                                       std::shared_ptr<const Checkpoint> source, awq::Quantizer& quantizer,
                                       QuantizeOptions& options, Exec& exec, ProgressBar& bar);

void add_bnb_flags(CLI::App& command, BnbFlags& flags);
/// The method that --load-in-4bit and its relatives mean, else flags.method.
std::string method_of(const QuantizeFlags& flags);
bool is_bnb(const std::string& method);
/// The quantizer of a bitsandbytes method; adds the format's choice of modules to flags.selection.
std::unique_ptr<ModuleQuantizer> bnb_quantizer(QuantizeFlags& flags);

}  // namespace nibble::cli
