// What the quantize command does when the output is written: how far is it from its source?
#include <CLI/CLI.hpp>

#include <cmath>
#include <iostream>

#include "base/error.h"
#include "calib/held_out.h"
#include "cli/quantize_flags.h"
#include "cli/table.h"

namespace nibble::cli {

void check_divergence(const QuantizeFlags& flags, const QuantizationPlan& plan,
                      std::shared_ptr<const Checkpoint> source, Exec& exec, ProgressBar& bar, Json& json) {
  exec.compute = compute_dtype("auto", *source);
  const HeldOutResult result =
      compare_on_held_out_text(std::move(source), Checkpoint::open(flags.out), {}, exec, bar.callback());
  bar.clear();
  const double limit = flags.job.max_kl.value_or(suspicious_divergence(plan.bits_per_weight()));
  if (flags.json) {
    json.set("kl", result.divergence ? Json(result.divergence->kl.value) : Json());
    json.set("same_top", result.divergence ? Json(result.divergence->same_top.value) : Json());
  } else if (!result.divergence) {
    std::cout << "KL        not compared with the source: " << result.reason << '\n';
  } else {
    const Divergence& d = *result.divergence;
    std::cout << "KL        " << fixed(d.kl.value, 4) << " +/- " << fixed(d.kl.error, 4)
              << " nats from the source per token of held-out text (" << result.tokens << " tokens); same top token "
              << fixed(100 * d.same_top.value, 1) << " %\n"
              << std::flush;
  }
  // Not "greater than": a divergence that is not a number is no good either.
  if (result.divergence && !(result.divergence->kl.value <= limit)) {
    throw runtime_failure(flags.out, ": written, but its predictions are ", fixed(result.divergence->kl.value, 3),
                          " nats per token from the source's, more than the ", fixed(limit, 3),
                          " allowed (--max-kl): do not use it before you know why");
  }
}

void add_check_flags(CLI::App& command, JobFlags& flags) {
  const char* const group = "Check of the result";
  auto* check = command.add_flag("--check-kl", flags.check_kl,
                                 "Run source and result over a held-out text and compare their predictions (methods "
                                 "that calibrate do so anyway)");
  check->group(group);
  command.add_flag("--no-check-kl", flags.no_check_kl, "Leave that out")->excludes(check)->group(group);
  command
      .add_option(
          "--max-kl", flags.max_kl,
          "Divergence in nats per token above which that is an error; default: 0.5 from 3.5 bits per weight on, "
          "2 from 2.5, else none")
      ->check(CLI::NonNegativeNumber)
      ->group(group);
}

}  // namespace nibble::cli
