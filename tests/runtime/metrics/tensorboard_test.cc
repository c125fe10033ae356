#include "runtime/metrics/tensorboard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "google/protobuf/unknown_field_set.h"
#include "runtime/metrics/crc32c.h"
#include "tests/runtime/checkpoint/file_size_limit.h"
#include "tests/support/temp_folder.h"

namespace cohort::runtime {
namespace {

using google::protobuf::UnknownFieldSet;
using ::testing::ElementsAre;

// The records of a TFRecord file; fails the test where framing or a checksum is wrong.
std::vector<std::string> Records(const std::string& bytes) {
  std::vector<std::string> records;
  size_t at = 0;
  while (at < bytes.size()) {
    uint64_t length = 0;
    uint32_t length_crc = 0, data_crc = 0;
    if (at + 12 > bytes.size()) break;
    std::memcpy(&length, &bytes[at], 8);
    std::memcpy(&length_crc, &bytes[at + 8], 4);
    EXPECT_EQ(length_crc, MaskedCrc32c(absl::string_view(&bytes[at], 8)));
    if (at + 16 + length > bytes.size()) break;
    records.push_back(bytes.substr(at + 12, length));
    std::memcpy(&data_crc, &bytes[at + 12 + length], 4);
    EXPECT_EQ(data_crc, MaskedCrc32c(records.back()));
    at += 16 + length;
  }
  EXPECT_EQ(at, bytes.size()) << "a torn record at the end";
  return records;
}

const google::protobuf::UnknownField* Find(const UnknownFieldSet& set, int number) {
  for (int i = 0; i < set.field_count(); ++i) {
    if (set.field(i).number() == number) return &set.field(i);
  }
  return nullptr;
}

// Protobuf's own reader, without a schema.
struct DecodedEvent {
  double wall_time = 0;
  int64_t step = 0;
  std::string version;
  std::vector<std::pair<std::string, float>> scalars;
};
DecodedEvent Decode(const std::string& record) {
  DecodedEvent event;
  UnknownFieldSet fields;
  EXPECT_TRUE(fields.ParseFromString(record));
  const uint64_t wall = Find(fields, 1)->fixed64();
  std::memcpy(&event.wall_time, &wall, 8);
  event.step = static_cast<int64_t>(Find(fields, 2)->varint());
  if (const auto* version = Find(fields, 3)) event.version = version->length_delimited();
  const auto* summary = Find(fields, 5);
  if (summary == nullptr) return event;
  UnknownFieldSet values;
  EXPECT_TRUE(values.ParseFromString(summary->length_delimited()));
  for (int i = 0; i < values.field_count(); ++i) {
    UnknownFieldSet value;
    EXPECT_TRUE(value.ParseFromString(values.field(i).length_delimited()));
    const uint32_t bits = Find(value, 2)->fixed32();
    float number = 0;
    std::memcpy(&number, &bits, 4);
    event.scalars.emplace_back(Find(value, 1)->length_delimited(), number);
  }
  return event;
}

TEST(Crc32cTest, PublishedValues) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(Crc32c(""), 0u);
}

TEST(TensorBoardTest, ScalarsDecode) {
  TempFolder temp;
  auto writer = TensorBoardWriter::Create(temp.path() + "/deep/folder");
  ASSERT_TRUE(writer.ok()) << writer.status();
  EXPECT_NE(writer->path().find("tfevents"), std::string::npos);
  ASSERT_TRUE(writer->Add(1, {{"train/loss", 2.5}, {"train/lr", 1e-3}}).ok());
  ASSERT_TRUE(writer->Add(int64_t{1} << 40, {{"train/loss", -0.5}}).ok());
  const auto records = Records(*ReadFile(writer->path()));
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(Decode(records[0]).version, "brain.Event:2");
  EXPECT_GT(Decode(records[0]).wall_time, 1.6e9);
  EXPECT_EQ(Decode(records[1]).step, 1);
  EXPECT_THAT(Decode(records[1]).scalars, ElementsAre(std::pair<std::string, float>("train/loss", 2.5f),
                                                      std::pair<std::string, float>("train/lr", 1e-3f)));
  EXPECT_EQ(Decode(records[2]).step, int64_t{1} << 40);
}

TEST(TensorBoardTest, AFullDiskIsReportedAndTearsNothing) {
  TempFolder temp;
  auto writer = TensorBoardWriter::Create(temp.path());
  ASSERT_TRUE(writer.ok());
  const size_t size = std::filesystem::file_size(writer->path());
  {
    const FileSizeLimit full(size + 10);
    EXPECT_EQ(writer->Add(1, {{"a", 1}}).code(), absl::StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(std::filesystem::file_size(writer->path()), size);
  EXPECT_TRUE(writer->Add(2, {{"a", 2}}).ok());
  const auto records = Records(*ReadFile(writer->path()));
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(Decode(records[1]).step, 2);
}

TEST(TensorBoardTest, NoFolderIsAnError) { EXPECT_FALSE(TensorBoardWriter::Create("/dev/null/folder").ok()); }

}  // namespace
}  // namespace cohort::runtime
