#include "cli/support_matrix.h"

#include <array>
#include <vector>

#include "cli/table.h"
#include "quant/scheme.h"

namespace nibble::cli {
namespace {

constexpr std::array<std::string_view, kTargets> kTargetNames{"ref", "cpu"};

const Kernels* kernels_of(const Layout& layout, std::size_t target) { return layout.kernels[target]; }

/// What a device does itself with a layout; the rest is ref's.
std::string ability(const Layout& layout, std::size_t target) {
  const Kernels* own = kernels_of(layout, target);
  const bool product = own != nullptr && own->matmul != nullptr, decode = own != nullptr && own->decode != nullptr;
  if (product && decode) return "product, decode";
  if (product) return "product";
  return decode ? "decode" : "by ref";
}

std::string bits_text(std::int32_t bits) { return bits == 0 ? "any" : std::to_string(bits); }

std::string joined(std::span<const std::string_view> names) {
  std::string out;
  for (const std::string_view name : names) out += (out.empty() ? "" : ", ") + std::string(name);
  return out;
}

std::string variants_of(const Scheme& scheme) {
  return scheme.variants == nullptr ? "" : joined(scheme.variants->names);
}

std::vector<Column> columns(std::vector<Column> head) {
  for (const std::string_view name : kTargetNames) head.push_back({std::string(name)});
  return head;
}

void add_abilities(std::vector<std::string>& row, const Layout& layout) {
  for (std::size_t target = 0; target < kTargets; ++target) row.push_back(ability(layout, target));
}

std::string scheme_table() {
  std::vector<std::vector<std::string>> rows;
  for (const char* dtype : {"f32", "bf16", "f16"}) {
    const Layout* dense = all_layouts().front();
    rows.push_back({"(plain)", dtype, dtype == std::string("f32") ? "32" : "16", std::string(dense->name)});
    add_abilities(rows.back(), *dense);
  }
  for (const Scheme* scheme : all_schemes()) {
    for (const SchemeForm& form : scheme->forms) {
      rows.push_back(
          {std::string(scheme->name), std::string(form.name), bits_text(form.bits), std::string(form.layout->name)});
      add_abilities(rows.back(), *form.layout);
    }
  }
  return markdown_table(columns({{"scheme"}, {"form"}, {"bits", true}, {"layout"}}), rows);
}

std::string file_table() {
  std::vector<std::vector<std::string>> rows;
  for (const Scheme* scheme : all_schemes()) {
    rows.push_back({std::string(scheme->name), scheme->open != nullptr ? "yes" : "no",
                    scheme->store != nullptr ? "yes" : "no", variants_of(*scheme), std::string(scheme->summary)});
  }
  return markdown_table({{"scheme"}, {"read"}, {"written back"}, {"variants (`convert --to`)"}, {"what"}}, rows);
}

std::string layout_table() {
  std::vector<std::vector<std::string>> rows;
  for (const Layout* layout : all_layouts()) {
    rows.push_back({std::string(layout->name), joined(layout->parts)});
    add_abilities(rows.back(), *layout);
  }
  return markdown_table(columns({{"layout"}, {"parts"}}), rows);
}

}  // namespace

std::string_view target_name(Target target) { return kTargetNames[static_cast<std::size_t>(target)]; }

std::string support_matrix_markdown() {
  return cat(
      "# Support matrix\n\n"
      "Written by `nibble list matrix --markdown` from the tables of the program; a test compares it with them.\n"
      "A device's column says what it has kernels of its own for; what it lacks is done by `ref`, so every row works\n"
      "on every device, with every model family of `nibble list models`.\n\n"
      "## Weights: scheme x bits x layout x device\n\n",
      scheme_table(), "\n## Files\n\n", file_table(), "\n## Layouts\n\n", layout_table());
}

Json support_matrix_json() {
  Json::Array rows;
  for (const Scheme* scheme : all_schemes()) {
    for (const SchemeForm& form : scheme->forms) {
      Json::Object devices;
      for (std::size_t target = 0; target < kTargets; ++target) {
        devices.emplace_back(std::string(kTargetNames[target]), ability(*form.layout, target));
      }
      rows.push_back(Json::Object{{"scheme", scheme->name},
                                  {"form", form.name},
                                  {"bits", form.bits == 0 ? Json() : Json(std::int64_t{form.bits})},
                                  {"layout", form.layout->name},
                                  {"devices", std::move(devices)}});
    }
  }
  return rows;
}

}  // namespace nibble::cli
