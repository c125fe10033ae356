#include "runtime/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "runtime/checkpoint/safetensors_header.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_data.h"

namespace cohort::runtime {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file with this header text and this many zero bytes of data.
std::string FileOf(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, '\0');
}

class SafetensorsTest : public ::testing::Test {
 protected:
  std::string Put(const std::string& bytes) {
    const std::string path = temp_.path() + "/t.safetensors";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  absl::Status OpenBytes(const std::string& bytes) { return SafetensorsFile::Open(Put(bytes)).status(); }

  TempFolder temp_;
};

TEST_F(SafetensorsTest, WritesAndReadsEveryType) {
  const DataType types[] = {
#define COHORT_X(enumerator, type, name, accumulator) DataType::enumerator,
      COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
  };
  const std::string path = temp_.path() + "/all.safetensors";
  std::vector<TensorInfo> infos;
  for (DataType type : types) infos.push_back({Name(type), type, {3}});
  infos.push_back({"empty", DataType::kF32, {0, 7}});
  infos.push_back({"scalar", DataType::kF64, {}});
  auto writer = SafetensorsWriter::Create(path, infos);
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (const TensorInfo& info : infos) {
    Tensor values = Tensor::Empty(CpuDevice(), info.shape, info.dtype);
    for (size_t i = 0; i < values.bytes(); ++i) static_cast<uint8_t*>(values.raw())[i] = 1 + i;
    ASSERT_TRUE(writer->Write(values).ok());
  }
  ASSERT_TRUE(writer->Finish().ok());

  auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata().at("format"), "pt");
  ASSERT_EQ(file->tensors().size(), infos.size());
  for (size_t i = 0; i < infos.size(); ++i) {
    EXPECT_EQ(file->tensors()[i].name, infos[i].name);
    auto tensor = file->Read(infos[i].name);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(tensor->dtype(), infos[i].dtype);
    EXPECT_EQ(tensor->shape(), infos[i].shape);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor->raw()) % SizeOf(tensor->dtype()), 0u) << infos[i].name;
    for (size_t b = 0; b < tensor->bytes(); ++b) {
      ASSERT_EQ(static_cast<uint8_t*>(tensor->raw())[b], static_cast<uint8_t>(1 + b)) << infos[i].name;
    }
  }
  EXPECT_EQ(file->Read("nothing").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsTest, ConvertsWhileWriting) {
  const std::string path = temp_.path() + "/bf16.safetensors";
  auto writer = SafetensorsWriter::Create(path, {{"x", DataType::kBF16, {2, 2}}});
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(
      writer->Write(Tensor::FromHost(CpuDevice(), {4}, DataType::kF32, {1, -2.5, 3, 1.00390625})).ok());
  ASSERT_TRUE(writer->Finish().ok());
  auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(ToHost(*file->Read("x")), ElementsAre(1, -2.5, 3, 1.0));
}

TEST_F(SafetensorsTest, TensorsOutliveTheFile) {
  const std::string path = temp_.path() + "/x.safetensors";
  auto writer = SafetensorsWriter::Create(path, {{"x", DataType::kF32, {2}}});
  ASSERT_TRUE(writer->Write(Tensor::FromHost(CpuDevice(), {2}, DataType::kF32, {1, 2})).ok());
  ASSERT_TRUE(writer->Finish().ok());
  Tensor x;
  {
    auto file = SafetensorsFile::Open(path);
    x = *file->Read("x");
  }
  std::filesystem::remove(path);
  EXPECT_THAT(ToHost(x), ElementsAre(1, 2));
}

TEST_F(SafetensorsTest, DataIsAligned) {
  const std::string header =
      MakeSafetensorsHeader({{"odd\"name\n", DataType::kF32, {1}}}, {{"format", "pt"}});
  EXPECT_EQ(header.size() % 64, 0u);
  EXPECT_TRUE(OpenBytes(header + "1234").ok());
}

TEST_F(SafetensorsTest, RefusesBrokenFiles) {
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
  };
  const std::string good = entry("F32", "[2]", "[0,8]");
  struct Case {
    std::string bytes;
    std::vector<std::string> message;
  };
  const std::vector<Case> cases = {
      {"", {"0 bytes"}},
      {"1234567", {"7 bytes", "truncated"}},
      {std::string(8, '\xff') + "{}", {"claims 18446744073709551615"}},
      {FileOf("{}", 0).substr(0, 9), {"claims 2 bytes", "the file has 9"}},
      {FileOf("{\"a\":", 0), {"not JSON"}},
      {FileOf("", 0), {"not JSON"}},
      {FileOf("[1]", 0), {"not an object"}},
      {FileOf("{\"\xff\":" + good + "}", 8), {"not JSON"}},
      {FileOf("{\"a\":" + good + ",\"a\":" + good + "}", 8), {"'a' twice"}},
      {FileOf(R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", 8), {"'shape' twice"}},
      {FileOf(R"({"__metadata__":{"format":1}})", 0), {"__metadata__ 'format' is not a string"}},
      {FileOf(R"({"__metadata__":7})", 0), {"__metadata__ is not an object"}},
      {FileOf("{\"a\":3}", 0), {"tensor 'a'", "not an object"}},
      {FileOf(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8), {"tensor 'a'", "no 'dtype'"}},
      {FileOf(R"({"a":{"dtype":4,"shape":[2],"data_offsets":[0,8]}})", 8), {"'a'", "dtype is not a string"}},
      {FileOf("{\"a\":" + entry("Q4", "[2]", "[0,8]") + "}", 8), {"'a'", "dtype Q4 is not one of F32, BF16"}},
      {FileOf("{\"a\":" + entry("F32", "[-2]", "[0,8]") + "}", 8), {"'a'", "not a list of counts"}},
      {FileOf("{\"a\":" + entry("F32", "[2.0]", "[0,8]") + "}", 8), {"'a'", "not a list of counts"}},
      {FileOf("{\"a\":" + entry("F32", "2", "[0,8]") + "}", 8), {"'a'", "not a list of counts"}},
      {FileOf("{\"a\":" + entry("F32", "[18446744073709551615]", "[0,8]") + "}", 8),
       {"not a list of counts"}},
      {FileOf("{\"a\":" + entry("F32", "[4294967296,4294967296]", "[0,0]") + "}", 0), {"'a'", "overflows"}},
      {FileOf("{\"a\":" + entry("F32", "[0,4294967296,4294967296]", "[0,0]") + "}", 0), {"'a'", "overflows"}},
      {FileOf("{\"a\":" + entry("F32", "[2]", "[0]") + "}", 8), {"'a'", "not a pair"}},
      {FileOf("{\"a\":" + entry("F32", "[2]", "[-8,0]") + "}", 8), {"'a'", "not a pair"}},
      {FileOf("{\"a\":" + entry("F32", "[2]", "[8,0]") + "}", 8), {"'a'", "[8, 0)", "outside"}},
      {FileOf("{\"a\":" + good + "}", 7), {"'a'", "[0, 8)", "7 bytes of data", "truncated"}},
      {FileOf("{\"a\":" + entry("F32", "[3]", "[0,8]") + "}", 8), {"'a'", "hold 8 bytes", "[3] needs 12"}},
      {FileOf("{\"a\":" + good + ",\"b\":" + entry("F32", "[2]", "[4,12]") + "}", 12),
       {"'b'", "inside the one"}},
      {FileOf("{\"a\":" + good + ",\"b\":" + entry("F32", "[2]", "[12,20]") + "}", 20),
       {"'b'", "a gap after 8"}},
      {FileOf("{\"a\":" + entry("F32", "[2]", "[4,12]") + "}", 12), {"'a'", "a gap after 0"}},
      {FileOf("{\"a\":" + good + "}", 9), {"1 bytes after the last tensor"}},
  };
  for (const Case& c : cases) {
    const absl::Status status = OpenBytes(c.bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("t.safetensors")) << status;
    for (const std::string& part : c.message) EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  }
}

// Whatever the length at which a good file is cut, and whichever byte of its header is damaged: an error or a
// header whose tensors lie in the file, never a crash.
TEST_F(SafetensorsTest, SurvivesCutsAndDamage) {
  const std::string header =
      MakeSafetensorsHeader({{"a", DataType::kF32, {2, 3}}, {"b", DataType::kBF16, {5}}}, {{"format", "pt"}});
  const std::string whole = header + std::string(34, 'x');
  ASSERT_TRUE(OpenBytes(whole).ok());
  for (size_t length = 0; length < whole.size(); length += 3) {
    EXPECT_FALSE(OpenBytes(whole.substr(0, length)).ok()) << length;
  }
  for (size_t at = 8; at < header.size(); ++at) {
    for (char damage : {'\0', '9', '"', '}', '\xff'}) {
      std::string damaged = header.substr(8);
      damaged[at - 8] = damage;
      auto parsed = ParseSafetensorsHeader(damaged, 34, "t");
      if (!parsed.ok()) continue;
      for (size_t i = 0; i < parsed->tensors.size(); ++i) {
        EXPECT_LE(parsed->offsets[i] + parsed->tensors[i].bytes(), 34u);
      }
    }
  }
}

TEST_F(SafetensorsTest, UnalignedTensorsAreCopied) {
  std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  header.append((8 - header.size() % 8) % 8, ' ');
  std::string bytes = FileOf(header, 5);
  const float value = 1.5f;
  bytes.replace(bytes.size() - 4, 4, reinterpret_cast<const char*>(&value), 4);
  auto file = SafetensorsFile::Open(Put(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  auto b = file->Read("b");
  ASSERT_TRUE(b.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b->raw()) % 4, 0u);
  EXPECT_THAT(ToHost(*b), ElementsAre(1.5));
}

TEST_F(SafetensorsTest, RefusesWhatIsNoFile) {
  EXPECT_EQ(SafetensorsFile::Open(temp_.path() + "/none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::Open(temp_.path()).status().code(), absl::StatusCode::kInvalidArgument);
  const std::string fifo = temp_.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_FALSE(SafetensorsFile::Open(fifo).ok());
}

TEST_F(SafetensorsTest, FullDiskIsResourceExhausted) {
  auto writer = SafetensorsWriter::Create("/dev/full", {{"x", DataType::kF32, {2}}});
  ASSERT_FALSE(writer.ok());
  EXPECT_EQ(writer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(writer.status().message()),
              AllOf(HasSubstr("/dev/full"), HasSubstr("No space left")));
}

TEST_F(SafetensorsTest, ReadsAPublishedFile) {
  COHORT_SKIP_WITHOUT_TEST_DATA();
  auto file = SafetensorsFile::Open(TestData() + "/stories260k/model.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  const TensorInfo* embedding = file->Find("model.embed_tokens.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->shape, Shape({512, 64}));
  EXPECT_EQ(file->tensors().size(), 2u + 5 * 9);
}

}  // namespace
}  // namespace cohort::runtime
