#include "api/quantize_on_load.h"

#include "api/config_json.h"
#include "api/quantize_in_memory.h"
#include "base/error.h"

namespace nibble {
namespace {

using Source = std::shared_ptr<const Checkpoint>;

/// One call of quantize_on_load.
struct Job {
  const Source& source;
  const DeviceMap& device_map;
  Exec& exec;
  const ProgressCallback& progress;
  std::vector<std::string>& notes;
};

Source quantize(const QuantoConfig& config, const Job& job) {
  return quantize_in_memory(job.source, config, job.exec.pool, job.progress);
}

Source quantize(const AwqConfig&, const Job& job) {
  throw bad_input(job.source->folder().string(), ": is not quantized; an AwqConfig is for models that are");
}

Source quantize(const AqlmConfig&, const Job& job) {
  throw bad_input(job.source->folder().string(), ": is not quantized; an AqlmConfig is for models that are");
}

Source quantize(const GPTQConfig&, const Job& job) {
  throw bad_input(job.source->folder().string(), ": is not quantized, and nibble cannot quantize to GPTQ yet");
}

Source quantize(const BitsAndBytesConfig&, const Job& job) {
  throw bad_input(job.source->folder().string(), ": is not quantized, and nibble cannot quantize to bitsandbytes yet");
}

}  // namespace

Source quantize_on_load(const Source& source, const QuantizeRequest& request, Exec& exec,
                        const ProgressCallback& progress, std::vector<std::string>& notes) {
  const Job job{source, request.device_map, exec, progress, notes};
  return std::visit([&](const auto& config) { return quantize(config, job); }, request.config);
}

}  // namespace nibble
