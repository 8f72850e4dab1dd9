// nibble list: the schemes, model families and devices that this program has.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <iostream>
#include <memory>
#include <thread>
#include <vector>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/support_matrix.h"
#include "cli/table.h"
#include "device/cpu/isa.h"
#include "models/model_class.h"
#include "quant/scheme.h"

namespace nibble::cli {
namespace {

struct ListFlags {
  std::string what;
  bool json = false, markdown = false;
};

/// A table as text, or as objects by column name.
struct Listing {
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> rows;
};

Listing list_schemes() {
  Listing out{{{"scheme"}, {"forms"}, {"read"}, {"written"}, {"variants"}, {"what"}}, {}};
  for (const Scheme* scheme : all_schemes()) {
    std::string forms, variants;
    for (const SchemeForm& form : scheme->forms) forms += (forms.empty() ? "" : ", ") + std::string(form.name);
    if (scheme->variants != nullptr) {
      for (const std::string_view name : scheme->variants->names)
        variants += (variants.empty() ? "" : ", ") + std::string(name);
    }
    out.rows.push_back({std::string(scheme->name), forms, scheme->open != nullptr ? "yes" : "no",
                        scheme->store != nullptr ? "yes" : "no", variants, std::string(scheme->summary)});
  }
  return out;
}

Listing list_models() {
  constexpr std::array<std::string_view, 4> kShapes{"decoder", "encoder-decoder", "text encoder", "image encoder"};
  Listing out{{{"class"}, {"model_type"}, {"shape"}}, {}};
  for (const models::ModelClass& model : models::all_model_classes()) {
    out.rows.push_back({std::string(model.hf_class), std::string(model.model_type),
                        std::string(kShapes.at(static_cast<std::size_t>(model.shape)))});
  }
  return out;
}

Listing list_devices() {
  Listing out{{{"device"}, {"what"}, {"threads", true}}, {}};
  const std::string threads = std::to_string(std::max(1U, std::thread::hardware_concurrency()));
  for (std::size_t i = 0; i < kTargets; ++i) {
    const auto target = static_cast<Target>(i);
    const std::string what = target == Target::ref
                                 ? "scalar, sums in double: the oracle of every test"
                                 : cat("SIMD of this processor", has(CpuIsa::amx) ? ", AMX tiles" : "");
    out.rows.push_back({std::string(target_name(target)), what, threads});
  }
  return out;
}

Json json_of(const Listing& listing) {
  Json::Array out;
  for (const std::vector<std::string>& row : listing.rows) {
    Json::Object object;
    for (std::size_t i = 0; i < row.size(); ++i) object.emplace_back(listing.columns[i].title, row[i]);
    out.emplace_back(std::move(object));
  }
  return out;
}

void run_list(const ListFlags& flags) {
  if (flags.what == "matrix") {
    if (flags.json) {
      print_json(support_matrix_json());
    } else {
      std::cout << support_matrix_markdown();
    }
    return;
  }
  const Listing listing = flags.what == "schemes"  ? list_schemes()
                          : flags.what == "models" ? list_models()
                                                   : list_devices();
  if (flags.json) {
    print_json(json_of(listing));
  } else {
    std::cout << markdown_table(listing.columns, listing.rows);
  }
}

}  // namespace

void add_list(CLI::App& app) {
  CLI::App* command = app.add_subcommand("list", "List schemes, model families, devices, or what fits together");
  const auto flags = std::make_shared<ListFlags>();
  command->add_option("what", flags->what, "schemes, models, devices or matrix")
      ->required()
      ->check(CLI::IsMember({"schemes", "models", "devices", "matrix"}));
  auto* json = command->add_flag("--json", flags->json, "Print JSON");
  command->add_flag("--markdown", flags->markdown, "Print Markdown (the default)")->excludes(json);
  command->footer(
      "matrix is scheme x bits x layout x device, as in docs/support-matrix.md.\n"
      "Examples:\n"
      "  nibble list schemes\n"
      "  nibble list devices --json\n"
      "  nibble list matrix --markdown > docs/support-matrix.md");
  command->callback([flags] { run_list(*flags); });
}

}  // namespace nibble::cli
