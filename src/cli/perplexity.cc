// nibble perplexity: what a model loses, by the protocol that a published figure names.
#include "run/perplexity.h"

#include <CLI/CLI.hpp>

#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/progress_bar.h"
#include "cli/table.h"

namespace nibble::cli {
namespace {

struct Flags {
  ModelFlags model;
  std::string file;
  std::string protocol = "gptq";
  std::string base;
  EvalOptions eval;
  bool wikitext = false;
  bool json = false;
};

/// The field "text" of each line's object.
std::vector<std::string> read_rows(const std::string& file) {
  const std::string content = read_text_input(file);
  std::vector<std::string> rows;
  std::size_t number = 1;
  for (std::size_t at = 0; at < content.size(); ++number) {
    const std::size_t end = std::min(content.find('\n', at), content.size());
    const std::string where = printable(file) + ":" + std::to_string(number);
    if (const std::string line = content.substr(at, end - at); line.find_first_not_of(" \t\r") != std::string::npos) {
      const Json row = Json::parse(line, where);
      const Json* text = row.get("text");
      if (text == nullptr) throw bad_input(where, ": no field \"text\"");
      rows.push_back(text->string(where + ": text"));
    }
    at = end + 1;
  }
  return rows;
}

std::vector<EvalDocument> read_documents(const Flags& flags) {
  const RowJoin join = protocol_info(flags.eval.protocol).join;
  if (std::filesystem::path(flags.file).extension() == ".jsonl") return documents_of_rows(read_rows(flags.file), join);
  std::string text = read_text_input(flags.file);
  if (flags.wikitext) return documents_of_wikitext(text, join);
  return document_of(std::move(text));
}

void print_head(const Flags& flags, const ModelInfo& info, const EvalPlan& plan) {
  std::cout << "model     " << flags.model.model << " (" << info.architecture << ", "
            << count_text(static_cast<double>(info.parameters)) << " parameters, "
            << byte_text(static_cast<double>(info.weight_bytes)) << ")\n"
            << "protocol  " << plan.info.name << ": windows of " << plan.ctx << " tokens";
  if (plan.stride != plan.ctx) std::cout << " that move by " << plan.stride;
  std::cout << "; scored: " << plan.info.scored << '\n'
            << "text      " << flags.file << ": " << plan.tokens << " tokens, " << plan.windows.size() << " windows\n"
            << "BOS       " << plan.bos << '\n'
            << std::flush;
}

std::string plus_minus(const Estimate& estimate, int digits) {
  return fixed(estimate.value, digits) + " +/- " + fixed(estimate.error, digits);
}

void print_divergence(const Divergence& d, const std::string& base) {
  std::cout << "\nagainst " << base << ":\n"
            << "PPL(base)        " << fixed(d.base_ppl, 4) << '\n'
            << "PPL ratio        " << plus_minus(d.ppl_ratio, 6) << '\n'
            << "Mean    KLD      " << plus_minus(d.kl, 6) << '\n'
            << "Median  KLD      " << fixed(d.kl_median, 6) << '\n'
            << "99.0%   KLD      " << fixed(d.kl_p99, 6) << '\n'
            << "99.9%   KLD      " << fixed(d.kl_p999, 6) << '\n'
            << "Maximum KLD      " << fixed(d.kl_max, 6) << '\n'
            << "Mean    delta p  " << fixed(100 * d.delta_p.value, 3) << " +/- " << fixed(100 * d.delta_p.error, 3)
            << " %\n"
            << "RMS     delta p  " << fixed(100 * d.delta_p_rms, 3) << " %\n"
            << "Same top token   " << fixed(100 * d.same_top.value, 3) << " +/- " << fixed(100 * d.same_top.error, 3)
            << " %\n";
}

void print_result(const Flags& flags, const EvalPlan& plan, const PerplexityResult& result) {
  std::cout << "\nFinal estimate: PPL = " << fixed(result.ppl.value, 4) << " +/- " << fixed(result.ppl.error, 5)
            << '\n';
  if (plan.info.protocol == Protocol::lm_eval) {
    std::cout << "word_perplexity  " << fixed(result.ppl.value, 4) << " (" << plan.words << " words)\n"
              << "byte_perplexity  " << fixed(result.byte_ppl, 4) << " (" << plan.bytes << " bytes)\n"
              << "bits_per_byte    " << fixed(result.bits_per_byte, 4) << '\n'
              << "token perplexity " << plus_minus(result.token_ppl, 4) << '\n';
  } else if (plan.info.protocol == Protocol::autogptq) {
    std::cout << "mean of the running values " << fixed(result.mean_of_running, 4) << '\n';
  }
  if (result.divergence) print_divergence(*result.divergence, flags.base);
}

Json json_of(const Flags& flags, const EvalPlan& plan, const PerplexityResult& result, DType compute) {
  Json::Object out{{"model", flags.model.model},
                   {"file", flags.file},
                   {"protocol", plan.info.name},
                   {"ppl", result.ppl.value},
                   {"stderr", result.ppl.error},
                   {"tokens", plan.tokens},
                   {"windows", static_cast<std::int64_t>(plan.windows.size())},
                   {"scored_tokens", result.scored},
                   {"ctx", plan.ctx},
                   {"stride", plan.stride},
                   {"bos", plan.bos},
                   {"dtype", name_of(compute)}};
  if (plan.info.protocol == Protocol::lm_eval) {
    out.insert(out.end(), {{"word_perplexity", result.ppl.value},
                           {"byte_perplexity", result.byte_ppl},
                           {"bits_per_byte", result.bits_per_byte},
                           {"token_perplexity", result.token_ppl.value},
                           {"words", plan.words},
                           {"bytes", plan.bytes}});
  }
  if (plan.info.protocol == Protocol::autogptq) out.emplace_back("mean_of_running", result.mean_of_running);
  if (result.divergence) {
    const Divergence& d = *result.divergence;
    out.insert(out.end(), {{"base", flags.base},
                           {"base_ppl", d.base_ppl},
                           {"ppl_ratio", d.ppl_ratio.value},
                           {"ppl_ratio_stderr", d.ppl_ratio.error},
                           {"kl", d.kl.value},
                           {"kl_stderr", d.kl.error},
                           {"kl_median", d.kl_median},
                           {"kl_99", d.kl_p99},
                           {"kl_999", d.kl_p999},
                           {"kl_max", d.kl_max},
                           {"same_top", d.same_top.value},
                           {"same_top_stderr", d.same_top.error},
                           {"delta_p", d.delta_p.value},
                           {"delta_p_rms", d.delta_p_rms}});
  } else {
    out.insert(out.end(), {{"kl", Json()}, {"same_top", Json()}});
  }
  return out;
}

/// The tokenizers must agree, or the same ids would mean different texts.
void check_same_tokens(const Flags& flags, const OpenedModel& base, std::span<const EvalDocument> documents,
                       const EvalPlan& plan) {
  const auto tokenizer = Tokenizer::open(base.checkpoint->folder());
  const EvalPlan other = plan_evaluation(documents, *tokenizer, 0, flags.eval);
  const auto same = [](const Window& a, const Window& b) { return a.ids == b.ids && a.targets == b.targets; };
  if (!std::equal(plan.windows.begin(), plan.windows.end(), other.windows.begin(), other.windows.end(), same))
    throw bad_input(printable(flags.base), ": its tokenizer gives other tokens than that of ",
                    printable(flags.model.model), ": the models cannot be compared");
}

void run_perplexity(Flags flags) {
  const auto protocol = protocol_from_name(flags.protocol);
  if (!protocol) throw bad_input("unknown protocol ", printable(flags.protocol));
  flags.eval.protocol = *protocol;
  Compute compute(flags.model.compute);
  const std::vector<EvalDocument> documents = read_documents(flags);
  const OpenedModel opened = open_model(flags.model, compute.exec());
  const auto tokenizer = Tokenizer::open(opened.checkpoint->folder());
  const EvalPlan plan = plan_evaluation(documents, *tokenizer, opened.model->info().context_length, flags.eval);

  OpenedModel base;
  Exec base_exec = compute.exec();
  std::optional<EvalModel> base_model;
  if (!flags.base.empty()) {
    ModelFlags base_flags = flags.model;
    base_flags.model = flags.base;
    base_flags.lora.clear();  // the base is what adapters are compared with
    base = open_model(base_flags, base_exec);
    check_same_tokens(flags, base, documents, plan);
    base_model.emplace(EvalModel{*base.model, base_exec});
  }

  if (!flags.json) print_head(flags, opened.model->info(), plan);
  ProgressBar bar;
  const ProgressCallback progress = bar.callback();
  const auto on_window = [&](const RunningPerplexity& at) {
    if (!flags.json) {
      std::cout << '[' << at.window << ']' << fixed(at.ppl, 4) << ',' << std::flush;
    } else if (progress) {
      progress({"perplexity", fixed(at.ppl, 4), at.window, at.windows});
    }
  };
  const EvalModel model{*opened.model, compute.exec()};
  const PerplexityResult result = measure_perplexity(model, base_model ? &*base_model : nullptr, plan, on_window);
  bar.clear();
  if (flags.json) {
    print_json(json_of(flags, plan, result, compute.exec().compute));
  } else {
    std::cout << '\n';
    print_result(flags, plan, result);
  }
}

}  // namespace

void add_perplexity(CLI::App& app) {
  CLI::App* command = app.add_subcommand("perplexity", "Measure perplexity, and divergence from a base model");
  const auto flags = std::make_shared<Flags>();
  add_model_flags(*command, flags->model);
  command->add_option("-f,--file", flags->file, "Text; .jsonl: rows with a field \"text\"; -: standard input")
      ->required();
  std::vector<std::string> names;
  for (const ProtocolInfo& info : protocols()) names.emplace_back(info.name);
  command->add_option("--protocol", flags->protocol, "Which windows, which tokens of them, and which BOS")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  command
      ->add_option("-c,--ctx", flags->eval.ctx,
                   "Tokens per window (gptq 2048, llama.cpp and autogptq 512, hf-stride 1024, lm-eval: the context)")
      ->check(CLI::Range(1, 1 << 24));
  command->add_option("--stride", flags->eval.stride, "Step between windows (hf-stride: 512)")
      ->check(CLI::Range(1, 1 << 24));
  command->add_option("--chunks", flags->eval.max_windows, "Use only the first N windows")
      ->check(CLI::Range(1, 1 << 30));
  command->add_option("--kl-base", flags->base,
                      "Model to compare with (without --lora): Kullback-Leibler divergence, same top token");
  command->add_flag(
      "--wikitext", flags->wikitext,
      "The file is wiki.test.raw: rebuild the data set's rows or pages and join them as the protocol does");
  command->add_flag("--json", flags->json, "Print one JSON object");
  command->footer(
      "The same model has another perplexity under every protocol; name it with the figure.\n"
      "Examples:\n"
      "  nibble perplexity models/demo -f models/demo/eval.txt --protocol gptq --ctx 512\n"
      "  nibble perplexity out/int4 -f models/demo/eval.txt --ctx 512 --kl-base models/demo\n"
      "  nibble perplexity org/name -f wiki.test.raw --protocol llama.cpp --chunks 32 --json");
  command->callback([flags] { run_perplexity(*flags); });
}

}  // namespace nibble::cli
