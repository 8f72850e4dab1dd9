// The calibration data of the quantize command.
#include <iostream>

#include "base/error.h"
#include "calib/dataset.h"
#include "cli/quantize_flags.h"

namespace nibble::cli {

Sequences calibration_data(const QuantizeFlags& flags, const Checkpoint& source) {
  if (flags.dataset.empty()) {
    throw bad_input("--method ", flags.method,
                    " needs --dataset: a file, or builtin for the small text that comes with nibble");
  }
  return calibration_sequences(flags.dataset, flags.dataset_path, source.folder(),
                               {.samples = flags.samples, .seqlen = flags.seqlen});
}

void print_data(const QuantizeFlags& flags, const Sequences& sequences, std::int64_t few) {
  const std::int64_t tokens = token_count(sequences);
  std::cout << "data      " << flags.dataset << ": " << sequences.size() << " sequences, " << tokens << " tokens"
            << (tokens < few ? "; that is little, expect more error than need be" : "") << '\n';
}

}  // namespace nibble::cli
