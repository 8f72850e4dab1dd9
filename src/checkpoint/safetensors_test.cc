#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "support/test_support.h"

namespace nibble {
namespace {

struct Verdict {
  const char* name;
  const char* complaint;  ///< part of the message; nullptr: the file is legal
};

/// Files of tests/data/hostile_safetensors. Where safetensors 0.8.0 differs it is said so.
constexpr Verdict kVerdicts[] = {
    {"bool_2", "BOOL byte 2"},     // accepted by 0.8.0
    {"deep", "not valid JSON"},    //
    {"dup_key", "duplicate key"},  // accepted by 0.8.0: the last wins
    {"empty", "too short"},
    {"empty_name", nullptr},
    {"end_lt_begin", "data_offsets"},
    {"extra_field", nullptr},
    {"f4_even", nullptr},
    {"f4_odd", "does not take"},
    {"f8e4m3", nullptr},
    {"float_dim", "whole numbers"},
    {"hdr_0", "not valid JSON"},
    {"hdr_array", "not a JSON object"},
    {"hdr_bad_utf8", "not valid JSON"},
    {"hdr_huge", "at most 100000000"},
    {"hdr_not_json", "not valid JSON"},
    {"hdr_past_eof", "truncated"},
    {"hole", "hole"},
    {"leading_space", nullptr},
    {"meta_nonstr", "not a string"},
    {"misaligned", nullptr},
    {"missing_off", "data_offsets is missing"},
    {"neg_dim", "whole numbers"},
    {"neg_offset", "whole numbers"},
    {"no_tensors", nullptr},
    {"ok", nullptr},
    {"overlap", "inside the tensor before it"},
    {"scalar", nullptr},
    {"seven", "too short"},
    {"shape_ovf", "too many elements"},
    {"size_mismatch", "does not take"},
    {"trailing_bytes", "behind the last tensor"},
    {"trailing_nul", "not valid JSON"},
    {"trailing_space", nullptr},
    {"truncated", "truncated"},
    {"unknown_dtype", "unknown dtype"},
    {"unsorted", nullptr},
    {"zero_dim", nullptr},
    {"zero_shared", nullptr},
};

std::string complaint_about(const std::filesystem::path& file) {
  try {
    Checkpoint::open(file.string());
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 2);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
}

TEST(Safetensors, HostileFilesGetTheirVerdict) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::data("hostile_safetensors"))) {
    files += entry.path().extension() == ".safetensors" ? 1 : 0;
  }
  EXPECT_EQ(files, std::size(kVerdicts));
  for (const Verdict& verdict : kVerdicts) {
    const auto file = test::data("hostile_safetensors") / (std::string(verdict.name) + ".safetensors");
    const std::string complaint = complaint_about(file);
    if (verdict.complaint == nullptr) {
      EXPECT_EQ(complaint, "") << verdict.name;
    } else {
      EXPECT_NE(complaint.find(verdict.complaint), std::string::npos) << verdict.name << ": " << complaint;
      EXPECT_EQ(complaint.find(file.string()), 0U) << "the message names the file first: " << complaint;
    }
  }
}

TEST(Safetensors, LegalOdditiesAreReadRight) {
  const auto open = [](const std::string& name) {
    return Checkpoint::open(test::data("hostile_safetensors/" + name + ".safetensors").string());
  };
  const auto misaligned = open("misaligned");
  EXPECT_EQ(misaligned->at("b").dtype(), DType::f32);
  EXPECT_EQ(misaligned->at("b").data() - misaligned->at("a").data(), 1);
  EXPECT_EQ(open("scalar")->at("a").shape(), Shape());
  EXPECT_EQ(open("scalar")->at("a").count(), 1);
  EXPECT_EQ(open("zero_dim")->at("a").shape(), (Shape{0, 5}));
  EXPECT_EQ(open("no_tensors")->tensors().size(), 0U);
  EXPECT_NE(open("empty_name")->find(""), nullptr);
  const auto f4_file = open("f4_even");
  EXPECT_EQ(f4_file->find("a")->raw_dtype, "F4");
  EXPECT_EQ(f4_file->at("a").shape(), (Shape{2}));
}

}  // namespace
}  // namespace nibble
