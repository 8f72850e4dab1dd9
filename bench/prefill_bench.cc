// Prefill speed against the machine's peak of bf16 arithmetic, both measured in turns.
//
//   nibble_prefill_bench --chain bf16 [--tokens 512] [--threads N] [--repeats R] [--clock cpu]    the weight matrices
//   of a 1.1 B Llama alone nibble_prefill_bench --model FOLDER ...                                         a whole
//   model
//
// Operations counted: two per weight of the blocks and token (the head is needed for one token only); attention is
// work, but not counted.
#include <cstdio>
#include <exception>
#include <functional>

#include "chain.h"
#include "checkpoint/checkpoint.h"
#include "machine_limits.h"
#include "report.h"
#include "run/compute_dtype.h"
#include "run/model.h"

namespace nibble::bench {
namespace {

struct Subject {
  std::string name;
  double flops = 0;
  std::function<double()> seconds_per_run;
};

Subject chain_subject(const std::string& kind, std::int64_t tokens, Clock clock, Exec& exec) {
  const auto chain = std::make_shared<Chain>(kind, LlamaShape{}, false, exec);
  chain->run(tokens, exec);
  return {kind + " matrices", chain->flops(tokens), [chain, tokens, clock, &exec] {
            const double start = clock();
            chain->run(tokens, exec);
            return clock() - start;
          }};
}

Subject model_subject(const std::string& folder, std::int64_t tokens, Clock clock, Exec& exec) {
  const auto checkpoint = Checkpoint::open(folder);
  const std::shared_ptr<Model> model =
      Model::load(checkpoint, {.kv_dtype = DType::bf16, .prefill_chunk = tokens, .max_context = tokens + 8}, exec);
  const auto ids = std::make_shared<std::vector<std::int32_t>>(static_cast<std::size_t>(tokens));
  for (std::size_t i = 0; i < ids->size(); ++i)
    (*ids)[i] = static_cast<std::int32_t>(i * 37 % static_cast<std::size_t>(model->info().vocab_size));
  double weights = 0;
  for (const TensorEntry& t : checkpoint->tensors()) {
    if (t.view.rank() == 2 && t.name.find(".layers.") != std::string::npos)
      weights += static_cast<double>(t.view.count());
  }
  const auto once = [model, ids, clock, &exec] {
    const std::int64_t sequence = model->open_sequence();
    std::vector<float> logits;
    const BatchItem item{.sequence = sequence, .ids = *ids};
    const double start = clock();
    model->forward({&item, 1}, logits, exec);
    const double time = clock() - start;
    model->close_sequence(sequence);
    return time;
  };
  once();
  return {folder, 2 * weights * static_cast<double>(tokens), once};
}

int run(int argc, char** argv) {
  const auto number = [&](const char* name, const char* otherwise) {
    return std::stoll(option(argc, argv, name, otherwise));
  };
  ThreadPool pool(static_cast<int>(number("threads", "0")));
  const Clock clock = option(argc, argv, "clock", "wall") == "cpu" && pool.size() == 1 ? &cpu_seconds : &seconds;
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena};
  const std::int64_t tokens = number("tokens", "512");
  const std::string chain = option(argc, argv, "chain", ""), model = option(argc, argv, "model", "");
  const std::string compute = option(argc, argv, "compute", "");
  if (!compute.empty()) exec.compute = dtype_from_name(compute).value_or(DType::bf16);
  if (compute.empty() && !model.empty()) exec.compute = default_compute_dtype(*Checkpoint::open(model));
  if (chain.empty() == model.empty()) throw bad_input("give --chain KIND or --model FOLDER");
  const Subject subject =
      chain.empty() ? model_subject(model, tokens, clock, exec) : chain_subject(chain, tokens, clock, exec);
  std::vector<double> speeds, rates, limits, ratios;
  for (long long r = 0; r < number("repeats", "7"); ++r) {
    const double before = bf16_peak(pool, clock), time = subject.seconds_per_run(), after = bf16_peak(pool, clock);
    speeds.push_back(static_cast<double>(tokens) / time);
    rates.push_back(subject.flops / time / 1e9);
    limits.push_back((before + after) / 2);
    ratios.push_back(100 * rates.back() / limits.back());
  }
  std::printf(
      "| subject | threads | tokens | tokens/s | GFLOP/s | %s peak GFLOP/s | %% |\n|---|---|---|---|---|---|---|\n",
      bf16_unit());
  std::printf("| %s | %d | %lld | %s | %s | %s | %s |\n", subject.name.c_str(), pool.size(),
              static_cast<long long>(tokens), to_text(spread_of(speeds), 1).c_str(),
              to_text(spread_of(rates), 0).c_str(), to_text(spread_of(limits), 0).c_str(),
              to_text(spread_of(ratios), 1).c_str());
  return 0;
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  try {
    return nibble::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
