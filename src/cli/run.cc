// nibble run MODEL -p TEXT: writes on from a prompt.
#include <CLI/CLI.hpp>

#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "run/generate.h"

namespace nibble::cli {
namespace {

constexpr std::int64_t kDefaultTokens = 256;

struct RunFlags {
  ModelFlags model;
  std::optional<std::string> prompt;
  std::string file;
  std::optional<std::int64_t> tokens, top_k;
  std::optional<double> temperature, top_p, min_p, repeat_penalty;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> stop;
  std::int64_t context = 0;
  bool greedy = false, sample = false, ignore_eos = false, no_special = false, echo = false, quiet = false,
       json = false;
};

void add_sampling_flags(CLI::App& command, RunFlags& flags) {
  command.add_option("--temp,--temperature", flags.temperature, "Temperature; 0: greedy");
  command.add_option("--top-k", flags.top_k, "Keep the k most likely tokens; 0: all");
  command.add_option("--top-p", flags.top_p, "Keep the most likely tokens up to this probability together");
  command.add_option("--min-p", flags.min_p, "Keep tokens at least this fraction as likely as the most likely");
  command.add_option("--repeat-penalty,--repetition-penalty", flags.repeat_penalty,
                     "Divide logits of tokens seen before by this");
  command.add_option("-s,--seed", flags.seed, "Seed of sampling; default 0, so that runs repeat");
  CLI::Option* greedy = command.add_flag("--greedy", flags.greedy, "Always the most likely token");
  command.add_flag("--sample", flags.sample, "Sample, whatever generation_config.json says")->excludes(greedy);
}

std::string read_prompt(const RunFlags& flags) {
  if (!flags.file.empty()) return read_text_input(flags.file);
  if (flags.prompt) return *flags.prompt;
  if (::isatty(STDIN_FILENO) == 0) return read_text_input("-");
  throw bad_input("no prompt: give one with -p TEXT, -f FILE, or on standard input");
}

GenerateOptions options_of(const RunFlags& flags, const Checkpoint& checkpoint) {
  GenerateOptions options = default_generate_options(checkpoint);
  SamplingOptions& s = options.sampling;
  // Asking for a way of sampling is asking for sampling.
  if (flags.temperature || flags.top_k || flags.top_p || flags.min_p || flags.sample) s.do_sample = true;
  if (flags.greedy) s.do_sample = false;
  s.temperature = flags.temperature.value_or(s.temperature);
  s.top_k = flags.top_k.value_or(s.top_k);
  s.top_p = flags.top_p.value_or(s.top_p);
  s.min_p = flags.min_p.value_or(s.min_p);
  s.repetition_penalty = flags.repeat_penalty.value_or(s.repetition_penalty);
  s.seed = flags.seed.value_or(s.seed);
  check_sampling(s);
  if (flags.tokens) {
    options.max_new_tokens = std::max<std::int64_t>(*flags.tokens, 0);  // -1, as llama.cpp: until the end
  } else if (options.max_new_tokens == 0) {
    options.max_new_tokens = kDefaultTokens;
  }
  if (flags.ignore_eos) options.eos_ids.clear();
  options.stop = flags.stop;
  return options;
}

void print_speed(const Generated& out) {
  const auto rate = [](double count, double seconds) { return seconds > 0 ? count / seconds : 0.0; };
  const auto made = static_cast<double>(out.ids.size());
  std::fprintf(stderr, "prompt: %lld tokens, %.2f s, %.1f tokens/s\n", static_cast<long long>(out.prompt_tokens),
               out.prompt_seconds, rate(static_cast<double>(out.prompt_tokens), out.prompt_seconds));
  std::fprintf(stderr, "answer: %zu tokens, %.2f s, %.1f tokens/s\n", out.ids.size(), out.generate_seconds,
               rate(made - 1, out.generate_seconds));
}

std::string_view name_of(StopReason reason) {
  switch (reason) {
    case StopReason::eos: return "eos";
    case StopReason::stop_text: return "stop";
    case StopReason::length: return "length";
    case StopReason::context: return "context";
    case StopReason::caller: return "caller";
  }
  return "";
}

Json as_json(const Generated& out) {
  Json::Array ids;
  for (const std::int32_t id : out.ids) ids.push_back(id);
  return Json::Object{{"text", out.text},
                      {"ids", std::move(ids)},
                      {"stop_reason", name_of(out.reason)},
                      {"prompt_tokens", out.prompt_tokens},
                      {"prompt_seconds", out.prompt_seconds},
                      {"generate_seconds", out.generate_seconds}};
}

void run(const RunFlags& flags) {
  Compute compute(flags.model.compute);
  const std::string prompt = read_prompt(flags);
  const OpenedModel opened = open_model(flags.model, compute.exec(), flags.context);
  const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::open(opened.checkpoint->folder());
  const GenerateOptions options = options_of(flags, *opened.checkpoint);
  EncodeOptions encode;
  encode.add_special = !flags.no_special;
  const std::vector<std::int32_t> ids = tokenizer->encode(prompt, encode);
  if (flags.json) {
    print_json(as_json(generate(*opened.model, tokenizer, ids, options, compute.exec())));
    return;
  }
  if (flags.echo) std::cout << prompt << std::flush;
  const Generated out =
      generate(*opened.model, tokenizer, ids, options, compute.exec(), [](std::int32_t, std::string_view text) {
        if (!text.empty()) std::cout << text << std::flush;
        return static_cast<bool>(std::cout);
      });
  std::cout << std::endl;
  if (!flags.quiet) print_speed(out);
}

}  // namespace

void add_run(CLI::App& app) {
  CLI::App* command = app.add_subcommand("run", "Write on from a prompt");
  auto flags = std::make_shared<RunFlags>();
  add_model_flags(*command, flags->model);
  CLI::Option* prompt = command->add_option("-p,--prompt", flags->prompt, "The prompt");
  command->add_option("-f,--file", flags->file, "Read the prompt from a file (-: standard input)")->excludes(prompt);
  command->add_option("-n,--n-predict,--max-new-tokens", flags->tokens,
                      "Most tokens to write; -1: until the end. Default: generation_config.json's, else 256");
  command->add_option("-c,--ctx,--ctx-size", flags->context, "Context length; 0: the model's own")
      ->check(CLI::NonNegativeNumber);
  command->add_option("-r,--stop", flags->stop, "End the answer before this text; may be given several times")
      ->take_all()
      ->allow_extra_args(false);
  add_sampling_flags(*command, *flags);
  command->add_flag("--ignore-eos", flags->ignore_eos, "Go on after an end token");
  command->add_flag("--no-special", flags->no_special, "Put no special tokens (BOS) around the prompt");
  command->add_flag("--echo", flags->echo, "Print the prompt before the answer");
  command->add_flag("-q,--quiet", flags->quiet, "No figures on standard error");
  command->add_flag("--json", flags->json, "One JSON document at the end instead of text as it is written");
  command->footer(
      "The answer goes to standard output as it is written, figures go to standard error.\n"
      "Sampling follows generation_config.json; flags come before it.\n\n"
      "Examples:\n"
      "  nibble run ./model -p 'Once upon a time' -n 100\n"
      "  nibble run ./model -p 'Once upon a time' --temp 0.8 --top-p 0.95 --seed 1\n"
      "  cat question.txt | nibble run org/name --greedy --stop '\\n\\n'");
  command->callback([flags] { run(*flags); });
}

}  // namespace nibble::cli
