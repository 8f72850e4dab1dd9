// nibble logits MODEL --ids FILE.json --out FILE.safetensors: raw outputs, for comparing with other implementations.
#include <CLI/CLI.hpp>

#include <cstring>
#include <functional>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/token_lists.h"
#include "models/model_class.h"
#include "run/encoder_model.h"

namespace nibble::cli {
namespace {

using models::ModelShape;

struct LogitsFlags {
  ModelFlags model;
  std::string ids, decoder_ids, pixels, out;
};

/// A safetensors file that is filled in memory and then written whole.
class OutputFile {
 public:
  explicit OutputFile(std::span<const TensorPlan> plan)
      : header_(make_safetensors_header(plan, Json::Object{{"format", "pt"}})), bytes_(header_.bytes) {
    bytes_.resize(header_.bytes.size() + static_cast<std::size_t>(header_.data_bytes));
  }
  /// Values of tensor `index` of the plan, from element `first` on.
  void put(std::size_t index, std::int64_t first, const float* values, std::int64_t count) {
    char* to = bytes_.data() + header_.bytes.size() + header_.offsets[index];
    std::memcpy(to + static_cast<std::size_t>(first) * sizeof(float), values,
                static_cast<std::size_t>(count) * sizeof(float));
  }
  void put(std::size_t index, const std::vector<float>& values) {
    put(index, 0, values.data(), static_cast<std::int64_t>(values.size()));
  }
  void write(const std::string& file) const { write_file_atomically(file, bytes_); }

 private:
  SafetensorsHeader header_;
  std::string bytes_;
};

/// A flag that a shape of model needs, or has no use for.
void check_flag(const std::string& value, const char* flag, bool wanted, std::string_view architecture) {
  if (wanted && value.empty()) throw bad_input(architecture, " needs ", flag, " FILE");
  if (!wanted && !value.empty()) throw bad_input(architecture, " has no use for ", flag);
}

/// Decoders and encoder-decoders: logits.N [tokens, vocab].
void write_logits(const LogitsFlags& flags, Exec& exec) {
  const OpenedModel opened = open_model(flags.model, exec);
  const ModelInfo& info = opened.model->info();
  const TokenLimits limits{info.vocab_size, "token id ", "vocabulary", info.context_length};
  TokenLists sequences = read_token_lists(flags.ids, "ids", limits), inputs(sequences.size());
  if (info.encoder_decoder) {
    inputs = std::move(sequences);
    sequences = read_token_lists(flags.decoder_ids, "ids", limits);
    if (sequences.size() != inputs.size()) {
      throw bad_input(printable(flags.decoder_ids), ": field ids has ", sequences.size(), " sequences, but ",
                      printable(flags.ids), " has ", inputs.size());
    }
  }
  std::vector<TensorPlan> plan;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    plan.push_back({cat("logits.", i), DType::f32, {static_cast<std::int64_t>(sequences[i].size()), info.vocab_size}});
  }
  OutputFile file(plan);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    for_each_logits(*opened.model, inputs[i], sequences[i], exec,
                    [&](std::int64_t first, std::int64_t rows, const float* values) {
                      file.put(i, first * info.vocab_size, values, rows * info.vocab_size);
                    });
  }
  file.write(flags.out);
}

/// last_hidden_state.N [positions, hidden] and, where there is a pooler, pooler_output.N [pooler_size]; from a
/// classifier logits [n, classes] alone.
void write_outputs(const std::vector<EncoderOutput>& outputs, const EncoderModel& model, const std::string& out) {
  const models::EncoderConfig& c = model.config();
  std::vector<TensorPlan> plan;
  if (c.classes > 0) {
    OutputFile file(
        std::vector<TensorPlan>{{"logits", DType::f32, {static_cast<std::int64_t>(outputs.size()), c.classes}}});
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      file.put(0, static_cast<std::int64_t>(i) * c.classes, outputs[i].logits.data(), c.classes);
    }
    file.write(out);
    return;
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const auto rows = static_cast<std::int64_t>(outputs[i].last_hidden_state.size()) / c.hidden_size;
    plan.push_back({cat("last_hidden_state.", i), DType::f32, {rows, c.hidden_size}});
  }
  for (std::size_t i = 0; model.has_pooler() && i < outputs.size(); ++i) {
    plan.push_back({cat("pooler_output.", i), DType::f32, {c.pooler_size}});
  }
  OutputFile file(plan);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    file.put(i, outputs[i].last_hidden_state);
    if (model.has_pooler()) file.put(outputs.size() + i, outputs[i].pooler_output);
  }
  file.write(out);
}

/// Texts with their token types, where the file has them (one per id).
std::vector<EncoderOutput> encode_texts(const LogitsFlags& flags, const EncoderModel& model, Exec& exec) {
  const models::EncoderConfig& c = model.config();
  const TokenLists sequences =
      read_token_lists(flags.ids, "ids", {c.vocab_size, "token id ", "vocabulary", c.max_positions});
  const TokenLists types = find_token_lists(flags.ids, "token_type_ids", {c.token_types, "", "token types", 0})
                               .value_or(TokenLists(sequences.size()));
  const std::string where = printable(flags.ids) + ": field token_type_ids";
  if (types.size() != sequences.size()) {
    throw bad_input(where, " has ", types.size(), " sequences, but field ids has ", sequences.size());
  }
  std::vector<EncoderOutput> outputs;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (!types[i].empty() && types[i].size() != sequences[i].size()) {
      throw bad_input(where, ": sequence ", i, " has ", types[i].size(), " types for ", sequences[i].size(),
                      " token ids");
    }
    outputs.push_back(model.encode(sequences[i], types[i], exec));
  }
  return outputs;
}

std::vector<EncoderOutput> encode_images(const LogitsFlags& flags, const EncoderModel& model, Exec& exec) {
  const std::shared_ptr<const Checkpoint> file = Checkpoint::open(flags.pixels);
  const TensorEntry* pixels = file->find("pixel_values");
  if (pixels == nullptr) throw bad_input(printable(flags.pixels), ": tensor pixel_values is missing");
  try {
    return model.encode_images(pixels->view, exec);
  } catch (const Error& error) {
    throw bad_input(printable(flags.pixels), ": ", error.what());
  }
}

void write_hidden_states(const LogitsFlags& flags, std::shared_ptr<const Checkpoint> checkpoint, Exec& exec) {
  if (!flags.model.lora.empty()) {
    throw bad_input("--lora: adapters of models that give hidden states are not supported");
  }
  exec.compute = compute_dtype(flags.model.dtype, *checkpoint);
  const EncoderModel model(std::move(checkpoint), exec);
  write_outputs(model.reads_images() ? encode_images(flags, model, exec) : encode_texts(flags, model, exec), model,
                flags.out);
}

void write_all(const LogitsFlags& flags) {
  Compute compute(flags.model.compute);
  std::shared_ptr<const Checkpoint> checkpoint = Checkpoint::open(flags.model.model);
  const std::string config = (checkpoint->folder() / "config.json").string();
  const models::ModelClass& found = models::model_class_of(checkpoint->config(), config);
  check_flag(flags.ids, "--ids", found.shape != ModelShape::image_encoder, found.hf_class);
  check_flag(flags.decoder_ids, "--decoder-ids", found.shape == ModelShape::encoder_decoder, found.hf_class);
  check_flag(flags.pixels, "--pixels", found.shape == ModelShape::image_encoder, found.hf_class);
  if (found.shape == ModelShape::decoder || found.shape == ModelShape::encoder_decoder) {
    write_logits(flags, compute.exec());
  } else {
    write_hidden_states(flags, std::move(checkpoint), compute.exec());
  }
}

}  // namespace

void add_logits(CLI::App& app) {
  CLI::App* command = app.add_subcommand("logits", "Write a model's logits or hidden states to a file");
  auto flags = std::make_shared<LogitsFlags>();
  add_model_flags(*command, flags->model);
  command->add_option("--ids", flags->ids, R"(Token ids: {"ids": [[...], ...]}; for BERT perhaps with token_type_ids)");
  command->add_option("--decoder-ids", flags->decoder_ids,
                      "Encoder-decoders (T5): the decoder's ids, one sequence for each of --ids, as --ids");
  command->add_option("--pixels", flags->pixels,
                      "Models of images (ViT): a safetensors file with pixel_values [n, channels, height, width]");
  command->add_option("-o,--out", flags->out, "The file to write, safetensors")->required();
  command->footer(
      "Writes f32 tensors, one or two per sequence or image N = 0, 1, ...:\n"
      "  decoders, encoder-decoders  logits.N [tokens, vocab]\n"
      "  encoders (BERT, ViTModel)   last_hidden_state.N [positions, hidden], pooler_output.N [hidden] if it has a "
      "pooler\n"
      "  classifiers of images       logits [n, classes]\n\n"
      "Examples:\n"
      "  nibble logits ./model --ids ids.json --out logits.safetensors --dtype f32\n"
      "  nibble logits ./flan-t5 --ids question.json --decoder-ids answer.json --out logits.safetensors\n"
      "  nibble logits ./vit --pixels images.safetensors --out logits.safetensors");
  command->callback([flags] { write_all(*flags); });
}

}  // namespace nibble::cli
