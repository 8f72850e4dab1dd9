// nibble logits MODEL --ids FILE.json --out FILE.safetensors: raw logits, for comparing with other implementations.
#include <CLI/CLI.hpp>

#include <cstring>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/safetensors.h"
#include "cli/commands.h"
#include "cli/common.h"

namespace nibble::cli {
namespace {

struct LogitsFlags {
  ModelFlags model;
  std::string ids, out;
};

std::vector<std::vector<std::int32_t>> read_ids(const std::string& file, const ModelInfo& info) {
  const Json json = Json::read(file);
  const std::string where = printable(file) + ": field ids";
  const Json* list = json.get("ids");
  if (list == nullptr) throw bad_input(where, R"( is missing; the file must be {"ids": [[...], ...]})");
  std::vector<std::vector<std::int32_t>> out;
  for (const Json& sequence : list->array(where)) {
    std::vector<std::int32_t>& ids = out.emplace_back();
    for (const Json& id : sequence.array(where)) {
      const std::int64_t value = id.integer(where);
      if (value < 0 || value >= info.vocab_size) {
        throw bad_input(where, ": token id ", value, " is outside the model's vocabulary of ", info.vocab_size);
      }
      ids.push_back(static_cast<std::int32_t>(value));
    }
    const auto count = static_cast<std::int64_t>(ids.size());
    if (count == 0) throw bad_input(where, ": sequence ", out.size() - 1, " is empty");
    if (info.context_length > 0 && count > info.context_length) {
      throw bad_input(where, ": sequence ", out.size() - 1, " has ", count, " tokens, but the context holds ",
                      info.context_length);
    }
  }
  if (out.empty()) throw bad_input(where, " has no sequence");
  return out;
}

void write_logits(const LogitsFlags& flags) {
  Compute compute(flags.model.compute);
  const OpenedModel opened = open_model(flags.model, compute.exec());
  const std::int64_t vocab = opened.model->info().vocab_size;
  const std::vector<std::vector<std::int32_t>> sequences = read_ids(flags.ids, opened.model->info());
  std::vector<TensorPlan> plan;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    plan.push_back({cat("logits.", i), DType::f32, {static_cast<std::int64_t>(sequences[i].size()), vocab}});
  }
  const SafetensorsHeader header = make_safetensors_header(plan, Json::Object{{"format", "pt"}});
  std::string file = header.bytes;
  file.resize(header.bytes.size() + static_cast<std::size_t>(header.data_bytes));
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    char* to = file.data() + header.bytes.size() + header.offsets[i];
    for_each_logits(*opened.model, sequences[i], compute.exec(),
                    [&](std::int64_t first, std::int64_t rows, const float* values) {
                      const auto row_bytes = static_cast<std::size_t>(vocab) * sizeof(float);
                      std::memcpy(to + static_cast<std::size_t>(first) * row_bytes, values,
                                  static_cast<std::size_t>(rows) * row_bytes);
                    });
  }
  write_file_atomically(flags.out, file);
}

}  // namespace

void add_logits(CLI::App& app) {
  CLI::App* command = app.add_subcommand("logits", "Write the logits of token ids to a file");
  auto flags = std::make_shared<LogitsFlags>();
  add_model_flags(*command, flags->model);
  command->add_option("--ids", flags->ids, R"(Token ids: {"ids": [[...], ...]})")->required();
  command->add_option("-o,--out", flags->out, "The file to write, safetensors")->required();
  command->footer(
      "Writes f32 tensors logits.0, logits.1, ... of shape [tokens, vocab], one per sequence.\n\n"
      "Example:\n"
      "  nibble logits ./model --ids ids.json --out logits.safetensors --dtype f32");
  command->callback([flags] { write_logits(*flags); });
}

}  // namespace nibble::cli
