#include "checkpoint/torch_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "support/test_support.h"

namespace nibble {
namespace {
namespace fs = std::filesystem;

/// A zip archive of stored entries, without checksums (libzip checks them only when it unpacks).
std::string make_zip(const std::vector<std::pair<std::string, std::string>>& entries, unsigned flags = 0,
                     unsigned method = 0, unsigned unpacked_size = 0) {
  const auto number = [](std::uint64_t value, int bytes) {
    std::string out;
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> 8 * i);
    return out;
  };
  std::string out, directory;
  for (const auto& [name, content] : entries) {
    const std::string common = number(20, 2) + number(flags, 2) + number(method, 2) + number(0, 8) +
                               number(content.size(), 4) + number(unpacked_size ? unpacked_size : content.size(), 4) +
                               number(name.size(), 2) + number(0, 2);
    directory += "PK\1\2" + number(20, 2) + common + number(0, 8) + number(0, 2) + number(out.size(), 4) + name;
    out += "PK\3\4" + common + name + content;
  }
  const std::size_t start = out.size();
  return out + directory + "PK\5\6" + number(0, 4) + number(entries.size(), 2) + number(entries.size(), 2) +
         number(directory.size(), 4) + number(start, 4) + number(0, 2);
}

std::string u4(std::uint32_t value) {
  std::string out(4, '\0');
  std::memcpy(out.data(), &value, 4);
  return out;
}

std::string text(const std::string& value) { return "X" + u4(static_cast<std::uint32_t>(value.size())) + value; }
std::string integer(std::int32_t value) { return "J" + u4(static_cast<std::uint32_t>(value)); }

struct TensorText {
  std::string key = "0";
  std::int32_t numel = 4, offset = 0;
  std::string size = integer(4) + "\x85", stride = integer(1) + "\x85";
  std::string function = "ctorch._utils\n_rebuild_tensor_v2\n";
  std::string storage = "ctorch\nFloatStorage\n";
};

/// The instructions that torch.save writes for one tensor.
std::string tensor(const TensorText& t) {
  return t.function + "((" + text("storage") + t.storage + text(t.key) + text("cpu") + integer(t.numel) + "tQ" +
         integer(t.offset) + t.size + t.stride + "\x89" + "ccollections\nOrderedDict\n)RtR";
}

std::string archive(const std::string& value) {
  return make_zip({{"a/data.pkl", "\x80\x02}" + text("w") + value + "s."}, {"a/data/0", std::string(16, '\1')}});
}

std::string complaint(const std::string& bytes) {
  const test::TempDir dir;
  test::write_text(dir / "x.pt", bytes);
  try {
    Checkpoint::open((dir / "x.pt").string());
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2) << error.what();
    return error.what();
  }
}

#define EXPECT_COMPLAINT(bytes, part) EXPECT_PRED2(contains, complaint(bytes), part)
bool contains(const std::string& all, const std::string& part) { return all.find(part) != std::string::npos; }

void expect_same(const Checkpoint& got, const Checkpoint& wanted) {
  ASSERT_EQ(got.tensors().size(), wanted.tensors().size());
  for (const TensorEntry& tensor : wanted.tensors()) {
    const TensorEntry* found = got.find(tensor.name);
    ASSERT_NE(found, nullptr) << tensor.name;
    EXPECT_EQ(found->view.dtype(), tensor.view.dtype()) << tensor.name;
    EXPECT_EQ(found->view.shape(), tensor.view.shape()) << tensor.name;
    ASSERT_EQ(found->view.size_bytes(), tensor.view.size_bytes());
    if (tensor.view.empty()) continue;
    EXPECT_EQ(std::memcmp(found->view.data(), tensor.view.data(), tensor.view.size_bytes()), 0) << tensor.name;
  }
}

TEST(TorchFile, RealFilesGiveTheirTensors) {
  const std::pair<const char*, const char*> pairs[] = {
      {"torch/views.pt", "torch/views.safetensors"},
      {"torch/views_legacy.pt", "torch/views.safetensors"},
      {"torch/views_protocol4.pt", "torch/views.safetensors"},
      {"torch/state_dict.bin", "torch/state_dict.safetensors"},
      {"torch/training.pt", "torch/state_dict.safetensors"},
      {"torch/script.pt", "torch/state_dict.safetensors"},
      {"torch/all_dtypes.pt", "safetensors/all_dtypes.safetensors"},
  };
  for (const auto& [torch, wanted] : pairs) {
    SCOPED_TRACE(torch);
    expect_same(*Checkpoint::open(test::data(torch).string()), *Checkpoint::open(test::data(wanted).string()));
  }
}

TEST(TorchFile, StoredTensorsAreMappedNotCopied) {
  const auto file = MappedFile::open(test::data("torch/state_dict.bin"));
  const TorchContent content = read_torch_file(file);
  EXPECT_TRUE(content.keep.empty());
  for (const TensorEntry& tensor : content.tensors) {
    EXPECT_GE(tensor.view.data(), file->bytes().data());
    EXPECT_LE(tensor.view.data() + tensor.view.size_bytes(), file->bytes().data() + file->bytes().size());
  }
}

TEST(TorchFile, ModelFolderWithIndex) {
  const test::TempDir dir;
  fs::copy_file(test::data("torch/state_dict.bin"), dir / "pytorch_model-00001-of-00001.bin");
  test::write_text(dir / "pytorch_model.bin.index.json",
                   R"({"weight_map": {"fc.weight": "pytorch_model-00001-of-00001.bin"}})");
  EXPECT_EQ(Checkpoint::open(dir.path().string())->at("fc.weight").shape(), (Shape{2, 3}));
  fs::rename(dir / "pytorch_model-00001-of-00001.bin", dir / "pytorch_model.bin");
  EXPECT_EQ(Checkpoint::open(dir.path().string())->tensors().size(), 3U);
}

TEST(TorchFile, CodeIsRefusedByName) {
  for (const char* name : {"torch/evil.pt", "torch/evil_legacy.pt"}) {
    EXPECT_COMPLAINT(test::read_text(test::data(name)), "refuses to load posix.system");
  }
  for (const char* global : {"os\nsystem\n", "builtins\neval\n", "__builtin__\nexec\n", "torch\nload\n",
                             "torch.storage\n_load_from_bytes\n", "torch._utils\n_rebuild_qtensor\n", "a\nb\x01\n"}) {
    EXPECT_COMPLAINT(archive("c" + std::string(global)), "refuses to load");
  }
  EXPECT_COMPLAINT(archive("\x93"), "global without a name");
  EXPECT_COMPLAINT(archive(text("os") + text("system") + "\x93"), "refuses to load os.system");
}

TEST(TorchFile, InstructionsThatMakeObjectsAreRefused) {
  EXPECT_COMPLAINT(archive("(ios\nsystem\n"), "INST");
  EXPECT_COMPLAINT(archive("(o"), "OBJ");
  EXPECT_COMPLAINT(archive("\x82\x01"), "EXT1");
  EXPECT_COMPLAINT(archive("P1\n"), "PERSID");
  EXPECT_COMPLAINT(archive("ctorch\nTensor\n)R"), "malformed call of a class");
  EXPECT_COMPLAINT(archive("ctorch\nTensor\n)\x81"), "refuses to make an object of torch.Tensor");
  EXPECT_COMPLAINT(archive("K\x01)R"), "malformed call");
  EXPECT_COMPLAINT(archive("K\x01}b"), "attributes");
  EXPECT_COMPLAINT(archive("\xff"), "unknown opcode 255");
}

TEST(TorchFile, BrokenPicklesAreErrors) {
  EXPECT_COMPLAINT(archive("t"), "no mark");
  EXPECT_COMPLAINT(archive("h\x07"), "never stored");
  EXPECT_COMPLAINT(archive("Nr" + u4(0x7fffffff)), "memo index too large");
  EXPECT_COMPLAINT(archive("X" + u4(0x7fffffff)), "ends inside an instruction");
  EXPECT_COMPLAINT(archive("\x8d" + std::string(8, '\xff')), "ends inside an instruction");
  EXPECT_COMPLAINT(archive("(K\x01"
                           "d"),
                   "key but no value");
  EXPECT_COMPLAINT(archive(std::string((1 << 20) + 10, 'N')), "stack too deep");
  EXPECT_COMPLAINT(archive(std::string((1 << 20) + 10, '(')), "too many marks");
  std::string nested;
  for (int i = 0; i < 200; ++i) nested += "](";
  for (int i = 0; i < 200; ++i) nested += i == 0 ? tensor({}) + "e" : "e";
  EXPECT_COMPLAINT(archive(nested), "nested too deeply");
  EXPECT_COMPLAINT(archive("]q\x01h\x01"
                           "a"),
                   "nested too deeply")
      << "a list that holds itself";
}

TEST(TorchFile, TensorsMustLieInTheirStorage) {
  EXPECT_EQ(complaint(archive(tensor({}))), "");
  EXPECT_COMPLAINT(archive(tensor({.offset = 1})), "reaches outside its storage of 4");
  EXPECT_COMPLAINT(archive(tensor({.offset = -1})), "malformed tensor: storage offset");
  EXPECT_COMPLAINT(archive(tensor({.size = integer(5) + "\x85"})), "reaches outside");
  EXPECT_COMPLAINT(archive(tensor({.stride = integer(2) + "\x85"})), "reaches outside");
  EXPECT_COMPLAINT(archive(tensor({.stride = integer(-1) + "\x85"})), "malformed tensor: size or stride");
  EXPECT_COMPLAINT(archive(tensor({.stride = ")"})), "reaches outside");
  EXPECT_COMPLAINT(archive(tensor({.numel = 5})), "should hold 20 bytes, but has 16");
  EXPECT_COMPLAINT(archive(tensor({.numel = -1})), "malformed persistent id");
  EXPECT_COMPLAINT(archive(tensor({.key = "1"})), "storage a/data/1 is missing");
  EXPECT_COMPLAINT(archive(tensor({.key = "../../etc/passwd"})), "is missing");
  EXPECT_COMPLAINT(archive(tensor({.storage = "ctorch\nSize\n"})), "not a storage class");
  EXPECT_COMPLAINT(archive(tensor({.numel = 16, .size = integer(16) + "\x85", .storage = "ctorch\nHalfStorage\n"})),
                   "should hold 32 bytes");
  const std::string huge = "\x8a\x08" + std::string(7, '\xff') + "\x7f";
  EXPECT_COMPLAINT(archive(tensor({.size = huge + huge + "\x86", .stride = integer(0) + integer(0) + "\x86"})),
                   "too many elements");
  EXPECT_COMPLAINT(archive(tensor({.size = integer(1 << 30) + "\x85", .stride = integer(0) + "\x85"})),
                   "repeats the elements of a small storage");
}

TEST(TorchFile, BoolBytesAreChecked) {
  const std::string pickle = "\x80\x02}" + text("w") +
                             tensor({.numel = 2, .size = integer(2) + "\x85", .storage = "ctorch\nBoolStorage\n"}) +
                             "s.";
  EXPECT_EQ(complaint(make_zip({{"a/data.pkl", pickle}, {"a/data/0", std::string("\0\1", 2)}})), "");
  EXPECT_COMPLAINT(make_zip({{"a/data.pkl", pickle}, {"a/data/0", std::string("\0\2", 2)}}), "neither 0 nor 1");
}

TEST(TorchFile, HostileArchivesAreErrors) {
  const std::string pickle = "\x80\x02}" + text("w") + tensor({}) + "s.";
  const std::string data(16, '\1');
  EXPECT_COMPLAINT(make_zip({{"a/data.pkl", pickle}, {"a/data/0", data}, {"a/data/0", data}}),
                   "two entries named a/data/0");
  EXPECT_COMPLAINT(make_zip({{"a/data.pkl", pickle}, {"b/data.pkl", pickle}}), "more than one data.pkl");
  EXPECT_COMPLAINT(make_zip({{"a/model.json", "{}"}}), "without data.pkl");
  EXPECT_COMPLAINT(make_zip({{"a/data.pkl", pickle}, {"a/data/0", data}}, 1), "encrypted");
  EXPECT_COMPLAINT(make_zip({{"a/data.pkl", pickle}}, 0, 8, 0xfffffff0), "would unpack");
  EXPECT_COMPLAINT(make_zip({{"a/data.pkl", pickle}, {"a/byteorder", "big"}}), "big-endian");
  const std::string whole = test::read_text(test::data("torch/state_dict.bin"));
  for (std::size_t size = 0; size < whole.size(); size += 37) EXPECT_NE(complaint(whole.substr(0, size)), "") << size;
  const std::string legacy = test::read_text(test::data("torch/views_legacy.pt"));
  for (std::size_t size = 0; size < legacy.size(); size += 11) EXPECT_NE(complaint(legacy.substr(0, size)), "") << size;
}

TEST(TorchFile, DisassemblyShowsEverythingAndRunsNothing) {
  const std::string shown = disassemble_torch_file(MappedFile::open(test::data("torch/evil.pt")));
  EXPECT_TRUE(contains(shown, "GLOBAL 'posix system'")) << shown;
  EXPECT_TRUE(contains(shown, "REDUCE")) << shown;
  EXPECT_TRUE(contains(shown, "STOP")) << shown;
  EXPECT_FALSE(fs::exists("/tmp/nibble-executed"));
  const std::string legacy = disassemble_torch_file(MappedFile::open(test::data("torch/evil_legacy.pt")));
  EXPECT_TRUE(contains(legacy, "GLOBAL 'posix system'")) << legacy;
}

TEST(TorchFile, OtherPeoplesFiles) {
  NIBBLE_NEED_SHARED(other, "models/other");
  EXPECT_EQ(Checkpoint::open((other / "vit-mnist/vit_mnist.pth").string())->tensors().size(), 74U);
  EXPECT_EQ(Checkpoint::open((other / "resnet-cifar/resnet20-12fca82f.th").string())->tensors().size(), 97U);
}

}  // namespace
}  // namespace nibble
