// nibble inspect PATH: what a checkpoint holds, and whether it is whole.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>
#include <memory>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/torch_file.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/inspect_report.h"
#include "cli/table.h"

namespace nibble::cli {
namespace {
namespace fs = std::filesystem;

struct InspectFlags {
  std::string path;
  bool json = false, tensors = false, modules = false, verify = false, pickle = false;
  ComputeFlags compute;
};

/// The PyTorch files that `path` names: itself, or those in the folder.
std::vector<fs::path> torch_files(const fs::path& path) {
  std::vector<fs::path> files;
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    files.push_back(path);
  } else {
    for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
      const std::string extension = entry.path().extension().string();
      const bool named = extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".th";
      if (named && entry.is_regular_file(error)) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  }
  std::erase_if(files, [](const fs::path& file) { return !is_torch_file(*MappedFile::open(file)); });
  return files;
}

void print_pickles(const std::vector<fs::path>& files) {
  for (const fs::path& file : files) {
    std::cout << file.string() << ": pickle (shown, not executed)\n"
              << disassemble_torch_file(MappedFile::open(file)) << '\n';
  }
}

/// A tensor's name with its numbers replaced by *, so that the layers of a model fall together.
std::string pattern_of(const std::string& name) {
  std::string out;
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t end = std::min(name.find('.', at), name.size());
    const std::string part = name.substr(at, end - at);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    out += (at == 0 ? "" : ".") + (number ? "*" : part);
    at = end + 1;
  }
  return out;
}

/// One row per tensor, or per group of equal tensors of several layers.
std::string tensor_table(const Checkpoint& checkpoint, bool all) {
  struct Row {
    std::string name, dtype, shape;
    std::int64_t count = 0;
    double bytes = 0;
  };
  std::vector<Row> rows;
  std::map<std::string, std::size_t> known;
  for (const TensorEntry& tensor : checkpoint.tensors()) {
    Row row{printable(all ? tensor.name : pattern_of(tensor.name)), dtype_text(tensor), to_string(tensor.view.shape())};
    const auto [place, fresh] = known.emplace(row.name + "\n" + row.dtype + row.shape, rows.size());
    if (fresh || all) rows.push_back(std::move(row));
    Row& target = all ? rows.back() : rows[place->second];
    ++target.count;
    target.bytes += static_cast<double>(tensor.view.size_bytes());
  }
  std::vector<std::vector<std::string>> cells;
  for (const Row& row : rows) {
    cells.push_back({row.name, row.dtype, row.shape, std::to_string(row.count), byte_text(row.bytes)});
  }
  return markdown_table({{"tensor"}, {"dtype"}, {"shape"}, {"count", true}, {"bytes", true}}, cells);
}

void print_modules(const InspectReport& report) {
  struct Sum {
    std::int64_t modules = 0, parameters = 0, bytes = 0;
  };
  std::map<std::string, Sum> forms;
  for (const ModuleReport& module : report.modules) {
    Sum& sum = forms[module.form];
    ++sum.modules;
    sum.parameters += module.parameters;
    sum.bytes += module.bytes;
  }
  for (const auto& [form, sum] : forms) {
    const ModuleReport total{.name = "", .form = form, .size = {}, .parameters = sum.parameters, .bytes = sum.bytes};
    std::cout << "  " << report.scheme << ": " << form << ": " << sum.modules << " linear modules, "
              << count_text(static_cast<double>(sum.parameters)) << " parameters, " << fixed(total.bits(), 3)
              << " bits per weight\n";
  }
}

/// One row per quantized module.
std::string module_table(const InspectReport& report) {
  std::vector<std::vector<std::string>> rows;
  for (const ModuleReport& module : report.modules) {
    rows.push_back({printable(module.name), to_string({module.size.rows, module.size.cols}), fixed(module.bits(), 3),
                    printable(module.form)});
  }
  return markdown_table({{"module"}, {"shape"}, {"bits/weight", true}, {report.scheme}}, rows);
}

void print_text(const InspectReport& report, const Checkpoint& checkpoint, bool all_tensors) {
  std::cout << report.path.string() << ": "
            << (report.architecture.empty() ? "tensors" : printable(report.architecture))
            << (report.scheme.empty() ? "" : ", " + report.scheme) << '\n';
  for (const auto& [file, bytes] : report.files) {
    std::cout << "  file        " << file.filename().string() << ", " << byte_text(static_cast<double>(bytes)) << '\n';
  }
  std::cout << "  tensors     " << checkpoint.tensors().size() << '\n'
            << "  parameters  " << report.parameters << " (" << count_text(static_cast<double>(report.parameters))
            << ")\n"
            << "  footprint   " << byte_text(static_cast<double>(report.bytes)) << " (" << report.bytes << " bytes), "
            << fixed(report.bits(), 3) << " bits per weight\n";
  for (const auto& [name, share] : report.dtypes) {
    std::cout << "  dtype       " << name << ": " << share.tensors << " tensors, "
              << byte_text(static_cast<double>(share.bytes)) << '\n';
  }
  if (!report.scheme.empty()) std::cout << "  scheme      " << report.scheme << ", by " << report.scheme_from << '\n';
  print_modules(report);
  for (const std::string& note : report.notes) std::cout << "  note: " << printable(note) << '\n';
  std::cout << '\n' << tensor_table(checkpoint, all_tensors);
}

void print_verified(const VerifyReport& report) {
  std::cout << "\nverified " << report.values << " values in " << report.files.size() << " files\n";
  for (const FileHealth& file : report.files) {
    if (!file.sha256.empty() && file.problem.empty()) {
      std::cout << "  " << file.file.filename().string() << ": sha256 is that of its blob\n";
    }
  }
  for (const std::string& problem : problems_of(report)) std::cout << "  " << problem << '\n';
  for (const TensorHealth& tensor : report.tensors) {
    if (tensor.all_zero) std::cout << "  note: tensor " << printable(tensor.name) << " is all zero\n";
  }
}

void run_inspect(const InspectFlags& flags) {
  const fs::path path = resolve_model(flags.path);
  if (flags.pickle) {
    const std::vector<fs::path> files = torch_files(path);
    if (files.empty()) throw bad_input(path.string(), ": no PyTorch file here");
    print_pickles(files);
    return;
  }
  if (flags.verify && !flags.json) print_pickles(torch_files(path));
  const auto checkpoint = Checkpoint::open(flags.path);
  Compute compute(flags.compute);
  InspectReport report = make_report(checkpoint, flags.verify, compute.exec());
  report.path = path;
  if (flags.json) {
    print_json(report_json(report, *checkpoint, flags.tensors));
  } else {
    print_text(report, *checkpoint, flags.tensors);
    if (flags.modules && !report.modules.empty()) std::cout << '\n' << module_table(report);
    if (report.verified) print_verified(*report.verified);
  }
  if (!report.verified) return;
  const std::vector<std::string> problems = problems_of(*report.verified);
  if (problems.empty()) return;
  throw bad_input(problems[0], problems.size() > 1 ? cat(" (and ", problems.size() - 1, " more)") : "");
}

}  // namespace

void add_inspect(CLI::App& app) {
  CLI::App* command = app.add_subcommand("inspect", "Show a checkpoint's tensors, scheme and size; verify it");
  const auto flags = std::make_shared<InspectFlags>();
  command
      ->add_option("path,-m,--model", flags->path,
                   "Model folder, file, or org/name[@revision] in the Hugging Face cache")
      ->required();
  command->add_flag("--json", flags->json, "Print JSON");
  command->add_flag("--tensors", flags->tensors, "List every tensor, not one line per group of layers");
  command->add_flag("--modules", flags->modules,
                    "List every quantized module: how it is stored, and why it is read so");
  command->add_flag("--verify", flags->verify,
                    "Read all bytes: NaN and infinities, all-zero tensors, checksums; show pickles as instructions");
  command->add_flag("--pickle", flags->pickle, "Only show the pickles of PyTorch files, also those refused to be read");
  add_compute_flags(*command, flags->compute);
  command->footer(
      "Headers are always checked in full; nothing in a checkpoint is ever executed.\n"
      "Exit code 2 when the checkpoint is broken or, with --verify, damaged or not finite.\n"
      "Examples:\n"
      "  nibble inspect models/demo\n"
      "  nibble inspect org/name-GPTQ --modules\n"
      "  nibble inspect org/name@main --verify\n"
      "  nibble inspect model.safetensors --tensors --json\n"
      "  nibble inspect suspicious.pt --pickle");
  command->callback([flags] { run_inspect(*flags); });
}

}  // namespace nibble::cli
