#include "run/adapter/bind.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "layout/dense/dense.h"
#include "nn/embedding.h"
#include "nn/linear.h"

namespace nibble {
namespace {

/// Rows of a weight that are decoded at once to find norms.
constexpr std::int64_t kNormRows = 256;

/// One adapter's change of one module.
struct Term {
  const LoraModule* module = nullptr;
  const Adapter* adapter = nullptr;
  double scale = 1;  ///< everything included
};
using Terms = std::map<std::string, std::vector<Term>>;

template <class... Args>
Error bad(const Term& term, const Args&... args) {
  return bad_input(term.adapter->file(), ": tensor ", printable(term.module->first_tensor), ": ", args...);
}

bool ends_with_part(std::string_view text, std::string_view end) {
  return text.size() > end.size() && text.substr(text.size() - end.size()) == end &&
         text[text.size() - end.size() - 1] == '.';
}

/// |W + scale * B A| of every row, times 1 / magnitude.
std::vector<float> gain_of(const QTensor& weight, const Term& term, Exec& exec) {
  const LoraModule& m = *term.module;
  const std::int64_t rank = m.rank(), inputs = m.inputs();
  const std::vector<float> a = m.a.to_f32(), b = m.b.to_f32(), magnitude = m.magnitude->to_f32();
  std::vector<float> gain(static_cast<std::size_t>(m.outputs()));
  std::vector<float> rows(static_cast<std::size_t>(std::min(kNormRows, m.outputs()) * inputs));
  const auto scale = static_cast<float>(term.scale);
  for (std::int64_t first = 0; first < m.outputs(); first += kNormRows) {
    const std::int64_t count = std::min(kNormRows, m.outputs() - first);
    decode(weight, first, count, rows.data(), exec);
    exec.pool.run(count, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t row = begin; row < end; ++row) {
        float* w = rows.data() + row * inputs;
        for (std::int64_t j = 0; j < rank; ++j) {
          const float factor = scale * b[static_cast<std::size_t>((first + row) * rank + j)];
          const float* aj = a.data() + j * inputs;
          for (std::int64_t i = 0; i < inputs; ++i) w[i] += factor * aj[i];
        }
        double squares = 0;
        for (std::int64_t i = 0; i < inputs; ++i) squares += static_cast<double>(w[i]) * static_cast<double>(w[i]);
        const auto at = static_cast<std::size_t>(first + row);
        gain[at] = static_cast<float>(static_cast<double>(magnitude[at]) / std::sqrt(squares));
      }
    });
  }
  const auto bad_row = std::find_if(gain.begin(), gain.end(), [](float g) { return !std::isfinite(g); });
  if (bad_row != gain.end()) {
    throw bad(term, "the changed weight's row ", bad_row - gain.begin(), " is zero or not finite: DoRA is undefined");
  }
  return gain;
}

/// The first `rows` rows of values [.., gain.size()] times gain.
void multiply_rows(std::vector<float>& values, std::int64_t rows, const std::vector<float>& gain) {
  for (std::int64_t row = 0; row < rows; ++row) {
    float* at = values.data() + row * static_cast<std::int64_t>(gain.size());
    for (std::size_t i = 0; i < gain.size(); ++i) at[i] *= gain[i];
  }
}

nn::LinearAdapter linear_adapter(const nn::Linear& linear, const std::vector<Term>& terms, Exec& exec) {
  const std::int64_t inputs = linear.inputs(), outputs = linear.outputs();
  std::int64_t rank = 0;
  for (const Term& term : terms) {
    const LoraModule& m = *term.module;
    if (m.inputs() != inputs || m.outputs() != outputs) {
      throw bad(term, "A ", to_string(m.a.shape()), " and B ", to_string(m.b.shape()),
                " do not fit the base's weight [", outputs, ", ", inputs, "]");
    }
    rank += m.rank();
  }
  nn::LinearAdapter made;
  Tensor a({rank, inputs}, DType::f32);
  made.b.resize(static_cast<std::size_t>(rank * outputs));
  std::int64_t first = 0;
  for (const Term& term : terms) {
    const LoraModule& m = *term.module;
    convert_to_f32(m.a.dtype(), m.a.data(), a.as<float>().data() + first * inputs, m.a.count());
    std::vector<float> gain;
    if (m.magnitude) {
      gain = gain_of(linear.weight, term, exec);
      if (made.gain.empty()) made.gain.assign(gain.size(), 1.0f);
      multiply_rows(made.gain, 1, gain);
      multiply_rows(made.b, first, gain);
      if (!made.bias.empty()) multiply_rows(made.bias, 1, gain);
    }
    const auto factor = [&](std::int64_t o) {
      return term.scale * (gain.empty() ? 1.0 : static_cast<double>(gain[static_cast<std::size_t>(o)]));
    };
    for (std::int64_t o = 0; o < outputs; ++o) {
      for (std::int64_t j = 0; j < m.rank(); ++j) {
        made.b[static_cast<std::size_t>((first + j) * outputs + o)] =
            static_cast<float>(factor(o) * static_cast<double>(m.b.at(o * m.rank() + j)));
      }
    }
    if (m.bias) {
      made.bias.resize(static_cast<std::size_t>(outputs));
      for (std::int64_t o = 0; o < outputs; ++o)
        made.bias[static_cast<std::size_t>(o)] += static_cast<float>(factor(o) * static_cast<double>(m.bias->at(o)));
    }
    first += m.rank();
  }
  made.a = dense::make(a, a.owner());
  return made;
}

nn::EmbeddingAdapter embedding_adapter(const nn::Embedding& embedding, const std::vector<Term>& terms) {
  nn::EmbeddingAdapter made;
  made.width = embedding.table.cols;
  const std::int64_t rows = embedding.table.rows;
  for (const Term& term : terms) {
    const LoraModule& m = *term.module;
    if (m.inputs() != rows || m.outputs() != made.width) {
      throw bad(term, "A ", to_string(m.a.shape()), " and B ", to_string(m.b.shape()), " do not fit the base's table [",
                rows, ", ", made.width, "]");
    }
    made.rank += m.rank();
  }
  made.a.resize(static_cast<std::size_t>(rows * made.rank));
  made.b.resize(static_cast<std::size_t>(made.rank * made.width));
  std::int64_t first = 0;
  for (const Term& term : terms) {
    const LoraModule& m = *term.module;
    for (std::int64_t j = 0; j < m.rank(); ++j) {
      for (std::int64_t row = 0; row < rows; ++row)
        made.a[static_cast<std::size_t>(row * made.rank + first + j)] = m.a.at(j * rows + row);
      for (std::int64_t i = 0; i < made.width; ++i)
        made.b[static_cast<std::size_t>((first + j) * made.width + i)] =
            static_cast<float>(term.scale * static_cast<double>(m.b.at(i * m.rank() + j)));
    }
    first += m.rank();
  }
  return made;
}

/// The changes by the model's own module names.
struct Sorted {
  Terms linears, embeddings;
};

Sorted sort_terms(std::span<const AdapterUse> uses, std::span<const std::string> linears,
                  std::span<const std::string> embeddings) {
  Sorted out;
  for (const AdapterUse& use : uses) {
    if (use.scale == 0) continue;
    for (const LoraModule& module : use.adapter->modules()) {
      const Term term{&module, use.adapter.get(), use.scale * module.scaling};
      const std::string* name = find_name(module.name, module.embedding ? embeddings : linears);
      if (name == nullptr) {
        const bool other_kind = find_name(module.name, module.embedding ? linears : embeddings) != nullptr;
        throw bad(term, "the base model has no ", module.embedding ? "embedding " : "linear ", printable(module.name),
                  other_kind ? (module.embedding ? " (it is a linear)" : " (it is an embedding)") : "");
      }
      (module.embedding ? out.embeddings : out.linears)[*name].push_back(term);
    }
  }
  return out;
}

}  // namespace

const std::string* find_name(std::string_view name, std::span<const std::string> names) {
  const std::string* found = nullptr;
  for (const std::string& candidate : names) {
    if (candidate == name) return &candidate;
    if (!ends_with_part(candidate, name) && !ends_with_part(name, candidate)) continue;
    if (found != nullptr) return nullptr;
    found = &candidate;
  }
  return found;
}

std::shared_ptr<const nn::Adapters> bind_adapters(Model& model, std::span<const AdapterUse> uses, Exec& exec) {
  std::map<std::string, const nn::Linear*> linears;
  std::map<std::string, const nn::Embedding*> embeddings;
  std::vector<std::string> linear_names, embedding_names;
  for (const ModuleView& view : model.modules()) {
    if (view.linear != nullptr && linears.emplace(view.linear->name, view.linear).second)
      linear_names.push_back(view.linear->name);
    if (view.embedding != nullptr && embeddings.emplace(view.embedding->name, view.embedding).second)
      embedding_names.push_back(view.embedding->name);
  }
  if (linears.empty() && !uses.empty()) throw bad_input("adapters are not supported for ", model.info().architecture);
  const Sorted sorted = sort_terms(uses, linear_names, embedding_names);
  const auto made = std::make_shared<nn::Adapters>();
  for (const auto& [name, terms] : sorted.linears)
    made->linears.emplace(name, linear_adapter(*linears.at(name), terms, exec));
  for (const auto& [name, terms] : sorted.embeddings)
    made->embeddings.emplace(name, embedding_adapter(*embeddings.at(name), terms));
  return made;
}

std::unique_ptr<Model> load_adapted(const std::shared_ptr<const Checkpoint>& base, std::span<const AdapterUse> uses,
                                    const ModelOptions& options, Exec& exec) {
  std::unique_ptr<Model> model = Model::load(with_replacements(base, uses), options, exec);
  if (!uses.empty()) model->set_adapters(bind_adapters(*model, uses, exec));
  return model;
}

}  // namespace nibble
