// Decoding speed against the machine's read bandwidth, both measured in turns.
//
//   nibble_decode_bench --chain int4 [--threads N] [--repeats R] [--clock cpu] [--batch M]    the weight matrices of
//   a 1.1 B Llama alone nibble_decode_bench --model FOLDER [--tokens T] ...                         a whole model
//
// Bandwidth is that of the best access pattern over 1 GiB in huge pages (machine_limits.h). "weights" are the bytes a
// token reads: all but the embedding table.
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
  double bytes = 0;
  std::function<double()> seconds_per_token;  ///< one repeat
};

Subject chain_subject(const std::string& kind, std::int64_t batch, Clock clock, Exec& exec) {
  const auto chain = std::make_shared<Chain>(kind, LlamaShape{}, true, exec);
  chain->run(batch, exec);
  return {kind + " matrices", static_cast<double>(chain->bytes()), [chain, batch, clock, &exec] {
            constexpr int rounds = 2;
            const double start = clock();
            for (int i = 0; i < rounds; ++i) chain->run(batch, exec);
            return (clock() - start) / rounds;
          }};
}

Subject model_subject(const std::string& folder, std::int64_t tokens, Clock clock, Exec& exec) {
  const std::shared_ptr<Model> model =
      Model::load(Checkpoint::open(folder), {.kv_dtype = DType::bf16, .max_context = 512}, exec);
  double bytes = static_cast<double>(model->info().weight_bytes);
  const auto checkpoint = Checkpoint::open(folder);
  if (const TensorEntry* table = checkpoint->find("model.embed_tokens.weight");
      table != nullptr && checkpoint->find("lm_head.weight") != nullptr) {
    bytes -= static_cast<double>(table->view.size_bytes());
  }
  return {folder, bytes, [model, tokens, clock, &exec] {
            const std::int64_t sequence = model->open_sequence();
            std::vector<float> logits;
            const std::int32_t id = 7;
            const BatchItem item{.sequence = sequence, .ids = {&id, 1}};
            model->forward({&item, 1}, logits, exec);
            const double start = clock();
            for (std::int64_t t = 0; t < tokens; ++t) model->forward({&item, 1}, logits, exec);
            const double time = (clock() - start) / static_cast<double>(tokens);
            model->close_sequence(sequence);
            return time;
          }};
}

int run(int argc, char** argv) {
  const auto number = [&](const char* name, const char* otherwise) {
    return std::stoll(option(argc, argv, name, otherwise));
  };
  ThreadPool pool(static_cast<int>(number("threads", "0")));
  const Clock clock = option(argc, argv, "clock", "wall") == "cpu" && pool.size() == 1 ? &cpu_seconds : &seconds;
  Arena arena;
  Exec exec{.target = Target::cpu, .pool = pool, .arena = arena};
  const std::string chain = option(argc, argv, "chain", ""), model = option(argc, argv, "model", "");
  const std::string compute = option(argc, argv, "compute", "");
  if (!compute.empty()) exec.compute = dtype_from_name(compute).value_or(DType::bf16);
  if (compute.empty() && !model.empty()) exec.compute = default_compute_dtype(*Checkpoint::open(model));
  if (chain.empty() == model.empty()) throw bad_input("give --chain KIND or --model FOLDER");
  const Subject subject = chain.empty() ? model_subject(model, number("tokens", "16"), clock, exec)
                                        : chain_subject(chain, number("batch", "1"), clock, exec);
  ReadBandwidth limit(clock);
  limit.tune(pool);
  std::vector<double> speeds, rates, limits, ratios;
  for (long long r = 0; r < number("repeats", "7"); ++r) {
    const double before = limit.measure(pool), time = subject.seconds_per_token(), after = limit.measure(pool);
    speeds.push_back(1 / time);
    rates.push_back(subject.bytes / time / 1e9);
    limits.push_back((before + after) / 2);
    ratios.push_back(100 * rates.back() / limits.back());
  }
  std::printf(
      "| subject | threads | MB per token | tokens/s | GB/s | read bandwidth GB/s | %% "
      "|\n|---|---|---|---|---|---|---|\n");
  std::printf("| %s | %d | %.0f | %s | %s | %s | %s |\n", subject.name.c_str(), pool.size(), subject.bytes / 1e6,
              to_text(spread_of(speeds), 2).c_str(), to_text(spread_of(rates), 1).c_str(),
              to_text(spread_of(limits), 1).c_str(), to_text(spread_of(ratios), 1).c_str());
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
