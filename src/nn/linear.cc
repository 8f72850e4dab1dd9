#include "nn/linear.h"

#include <algorithm>
#include <array>

#include "nn/activation_quant.h"
#include "nn/adapters.h"

namespace nibble::nn {
namespace {

MatJob job_of(const Linear& linear, const float* x, std::int64_t m, float* y) {
  MatArgs args;
  args.x = x;
  args.m = m;
  args.ldx = linear.inputs();
  args.y = y;
  args.ldy = linear.outputs();
  args.bias = linear.bias.empty() ? nullptr : linear.bias.data();
  return {&linear.weight, args};
}

}  // namespace

void Linear::forward(const float* x, std::int64_t m, float* y, Exec& exec) const {
  const LinearJob job{this, y};
  forward_many({&job, 1}, x, m, exec);
}

void forward_many(std::span<const LinearJob> jobs, const float* x, std::int64_t m, Exec& exec) {
  constexpr std::size_t kMost = 8;
  check(jobs.size() <= kMost, "forward_many: too many linears of one input");
  std::array<MatJob, kMost> plain;
  std::size_t count = 0;
  for (const LinearJob& job : jobs) {
    if (exec.tap != nullptr) exec.tap->linear_input(job.linear->name, x, m, job.linear->inputs());
    if (!job.linear->activation) plain[count++] = job_of(*job.linear, x, m, job.y);
  }
  if (count > 0) matmul_many({plain.data(), count}, exec);
  for (const LinearJob& job : jobs) {
    if (job.linear->activation) {
      forward_quantized(*job.linear, x, m, job.y, exec);
    } else if (exec.tap != nullptr) {
      exec.tap->linear_output(job.linear->name, job.y, m, job.linear->outputs());
    }
  }
  if (std::any_of(jobs.begin(), jobs.end(), [](const LinearJob& job) { return job.linear->adapter != nullptr; })) {
    add_adapters(jobs, x, m, exec);
  }
}

}  // namespace nibble::nn
