// What a run writes about itself, read back by plain decoders.
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/metrics/chrome_trace.h"
#include "runtime/metrics/json_lines.h"
#include "runtime/metrics/progress.h"
#include "runtime/metrics/tensorboard.h"

namespace cohort::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class MetricsTest : public ::testing::Test {
 protected:
  MetricsTest() : folder_(::testing::TempDir() + absl::StrCat("metrics-", getpid())) {
    std::filesystem::remove_all(folder_);
  }
  ~MetricsTest() override { std::filesystem::remove_all(folder_); }
  static std::string Read(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  const std::string folder_;
};

// RFC 3720, B.4: 32 bytes of zeros, and of ones.
TEST_F(MetricsTest, CrcIsCastagnolis) {
  const auto unmask = [](uint32_t masked) {
    const uint32_t rotated = masked - 0xa282ead8u;
    return (rotated >> 17) | (rotated << 15);
  };
  EXPECT_EQ(unmask(MaskedCrc32c(std::string(32, '\0'))), 0x8a9136aau);
  EXPECT_EQ(unmask(MaskedCrc32c(std::string(32, '\xff'))), 0x62a8ab43u);
}

TEST_F(MetricsTest, EventFilesAreFramedRecordsOfScalars) {
  {
    auto writer = TensorBoardWriter::Create(folder_);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE(writer->AddScalars(300, {{"loss", 2.5f}, {"lr", 1e-3f}}).ok());
  }
  std::vector<std::string> events;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    EXPECT_THAT(entry.path().filename().string(), HasSubstr("events.out.tfevents."));
    const std::string file = Read(entry.path());
    for (size_t at = 0; at < file.size();) {
      uint64_t length = 0;
      uint32_t length_crc = 0, data_crc = 0;
      ASSERT_LE(at + 12, file.size());
      std::memcpy(&length, file.data() + at, 8);
      std::memcpy(&length_crc, file.data() + at + 8, 4);
      EXPECT_EQ(length_crc, MaskedCrc32c(file.substr(at, 8)));
      ASSERT_LE(at + 16 + length, file.size());
      events.push_back(file.substr(at + 12, length));
      std::memcpy(&data_crc, file.data() + at + 12 + length, 4);
      EXPECT_EQ(data_crc, MaskedCrc32c(events.back()));
      at += 16 + length;
    }
  }
  ASSERT_EQ(events.size(), 2u);
  EXPECT_THAT(events[0], HasSubstr("brain.Event:2"));
  // step = 2: varint 300; then the tags with their values after them.
  EXPECT_EQ(events[1].substr(9, 3), "\x10\xac\x02");
  float loss = 0;
  const size_t tag = events[1].find("loss");
  ASSERT_NE(tag, std::string::npos);
  std::memcpy(&loss, events[1].data() + tag + 5, 4);
  EXPECT_EQ(loss, 2.5f);
}

TEST_F(MetricsTest, JsonLinesGoOnAfterTheStepThatWasResumedFrom) {
  const std::string path = folder_ + "/metrics.jsonl";
  {
    auto lines = JsonLines::Open(path, 0);
    ASSERT_TRUE(lines.ok()) << lines.status();
    for (int step = 1; step <= 5; ++step)
      ASSERT_TRUE(lines->Write(absl::StrCat("{\"step\":", step, "}")).ok());
  }
  std::ofstream(path, std::ios::app) << "{\"step\":6,\"lo";  // killed while writing
  {
    auto lines = JsonLines::Open(path, 3);
    ASSERT_TRUE(lines.ok()) << lines.status();
    ASSERT_TRUE(lines->Write("{\"step\":4,\"again\":true}").ok());
  }
  EXPECT_EQ(Read(path), "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4,\"again\":true}\n");
  ASSERT_TRUE(JsonLines::Open(path, 0).ok());
  EXPECT_EQ(Read(path), "");
}

TEST_F(MetricsTest, AFullDiskIsAnErrorAndNotACrash) {
  auto lines = JsonLines::Open(folder_ + "/metrics.jsonl", 0);
  ASSERT_TRUE(lines.ok());
  struct rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  struct rlimit small = old;
  small.rlim_cur = 100;
  std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = lines->Write(std::string(1000, 'x'));
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("metrics.jsonl"));
}

TEST_F(MetricsTest, ATraceHasEveryThreadsScopes) {
  { const TraceScope before("not recorded"); }
  ChromeTrace::Start(3);
  {
    const TraceScope outer("outer");
    std::thread([] { const TraceScope inner("inner"); }).join();
  }
  ASSERT_TRUE(ChromeTrace::Stop(folder_ + "/trace.json").ok());
  const auto events = nlohmann::json::parse(Read(folder_ + "/trace.json"));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["name"], "inner");
  EXPECT_EQ(events[1]["name"], "outer");
  EXPECT_NE(events[0]["tid"], events[1]["tid"]);
  EXPECT_EQ(events[0]["pid"], 3);
  EXPECT_GE(events[0]["ts"], events[1]["ts"]);
  EXPECT_LE(events[0]["dur"], events[1]["dur"]);
}

TEST(ProgressTest, SaysStepLossSpeedShareAndTimeLeft) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  {
    Progress progress(
        {.out = out, .every = 2, .total_steps = 100, .peak_flops = 4e6, .flops_per_token = 1e3});
    for (int step = 1; step <= 4; ++step) {
      progress.Step({.step = step, .loss = 2.5, .tokens = 2000, .seconds = 2.0});
    }
    progress.Note("a note");
  }
  std::fclose(out);
  EXPECT_STREQ(text,
               "step 1/100  loss 2.5000  1000 tokens/s  25.0% of peak  3m 18s left\n"
               "step 2/100  loss 2.5000  1000 tokens/s  25.0% of peak  3m 16s left\n"
               "step 4/100  loss 2.5000  1000 tokens/s  25.0% of peak  3m 12s left\n"
               "a note\n");
  free(text);
}

TEST(ProgressTest, TheLiveLineIsRewrittenAndNotTornByNotes) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  {
    Progress progress({.out = out, .live = true, .total_steps = 2});
    progress.Step({.step = 1, .loss = 1, .tokens = 10, .seconds = 1});
    progress.Note("saved");
    progress.Step({.step = 2, .loss = 1, .tokens = 10, .seconds = 1});
  }
  std::fclose(out);
  EXPECT_STREQ(text,
               "\rstep 1/2  loss 1.0000  10 tokens/s  1s left\033[K\r\033[Ksaved\n"
               "\rstep 2/2  loss 1.0000  10 tokens/s  0s left\033[K\n");
  free(text);
}

TEST(ProgressTest, DurationsAreShort) {
  EXPECT_EQ(ShortDuration(absl::Seconds(7)), "7s");
  EXPECT_EQ(ShortDuration(absl::Seconds(200)), "3m 20s");
  EXPECT_EQ(ShortDuration(absl::Seconds(7500)), "2h 05m");
  EXPECT_EQ(ShortDuration(-absl::Seconds(1)), "0s");
}

}  // namespace
}  // namespace cohort::runtime
