// The coordinator and what it keeps, over real sockets.
#include "runtime/elastic/coordinator/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <thread>

#include "tests/runtime/elastic/coordinator/coordinator_fixture.h"
#include "tests/runtime/elastic/coordinator/etcd_process.h"

namespace cohort::cluster {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST_F(CoordinatorTest, EventsAreStreamedOverARestart) {
  Start();
  const auto a = Joined("a");
  std::vector<uint64_t> revisions;
  std::vector<std::string> words;
  std::thread watching([&] {
    const absl::Status status = NewClient("onlooker")->WatchEvents(1, Soon(), [&](const v1::Event& event) {
      revisions.push_back(event.revision());
      words.push_back(event.words());
      return event.words() != "last";
    });
    EXPECT_TRUE(status.ok()) << status;
  });
  a->Tell(v1::EVENT_KIND_NOTE, 1, "first", 0, "b");
  EXPECT_TRUE(a->Flush(Soon()));
  Restart();
  a->Tell(v1::EVENT_KIND_NOTE, 2, "last");
  watching.join();
  for (size_t i = 0; i < revisions.size(); ++i) EXPECT_EQ(revisions[i], i + 1);
  EXPECT_THAT(words, ::testing::Contains("first"));
  EXPECT_EQ(
      NewClient("onlooker")
          ->WatchEvents(1000000, absl::Now() + absl::Milliseconds(100), [](const auto&) { return true; })
          .code(),
      absl::StatusCode::kDeadlineExceeded);
}

TEST_F(CoordinatorTest, AFullDiskIsSaidAndPasses) {
  signal(SIGXFSZ, SIG_IGN);
  Start();
  const auto a = Joined("a");
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {16384, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const auto full = a->AdvanceEpoch({0, 1, {"a"}, std::string(30000, 'x'), 0, ""}, Soon());
  EXPECT_EQ(full.status().code(), absl::StatusCode::kResourceExhausted) << full.status();
  EXPECT_THAT(std::string(full.status().message()), AllOf(HasSubstr(state), HasSubstr("make room")));
  EXPECT_EQ(Describe().epoch().number(), 0u);  // what is not durable was not done
  const auto fits = a->AdvanceEpoch({0, 1, {"a"}, "short", 0, ""}, Soon());
  EXPECT_TRUE(fits.ok()) << fits.status();
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_TRUE(a->AdvanceEpoch({1, 2, {"a"}, std::string(30000, 'x'), 0, ""}, Soon()).ok());
  Restart();
  EXPECT_EQ(Describe().epoch().number(), 2u);
  EXPECT_EQ(Describe().members_size(), 1);
}

TEST_F(CoordinatorTest, TheJournalIsKeptShort) {
  Start();
  const auto a = Joined("a");
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(
        a->Put("launch", absl::StrCat("key ", i % 4, i / 4 * 1000), std::string(200000, 'x'), Soon()).ok());
    ASSERT_TRUE(a->Put(absl::StrCat("launch ", i), "key", std::string(200000, 'x'), Soon()).ok());
  }
  EXPECT_LT(std::filesystem::file_size(state + "/journal"), 12u << 20);  // 16 MB were appended
  Restart();
  EXPECT_EQ(Describe().members_size(), 1);
  EXPECT_TRUE(a->Get("launch 39", "key", Soon()).ok());
}

TEST_F(CoordinatorTest, ABrokenLineOfEventsIsEnded) {
  Start();
  Joined("a");
  coordinator.reset();
  const std::string path = state + "/events.jsonl";
  const std::string whole = *runtime::ReadFile(path);
  // The crash came before the last line was whole: it is written anew.
  ASSERT_TRUE(runtime::WriteFileDurably(path, whole.substr(0, whole.size() - 30)).ok());
  Start();
  coordinator.reset();
  const std::string mended = *runtime::ReadFile(path);
  int joined = 0, started = 0;
  for (absl::string_view line : absl::StrSplit(mended, '\n', absl::SkipEmpty())) {
    const auto json = nlohmann::json::parse(line.begin(), line.end(), nullptr, false);
    if (!json.is_object()) continue;
    joined += json["kind"] == "member_joined";
    started += json["kind"] == "coordinator_started";
  }
  EXPECT_EQ(joined, 1);
  EXPECT_EQ(started, 2);
}

TEST_F(CoordinatorTest, OptionsThatCannotBeAreNamed) {
  Start();
  const auto start = [&](const std::string& where, const std::string& listen, absl::Duration a_lease,
                         const std::string& metrics = "") {
    CoordinatorOptions options;
    options.state = where;
    options.listen = listen;
    options.lease = a_lease;
    options.metrics = metrics;
    const auto started = Coordinator::Start(options);
    EXPECT_FALSE(started.ok());
    return std::string(started.status().message());
  };
  const std::string other = folder.Path("other");
  EXPECT_THAT(start(state, "127.0.0.1:0", lease), HasSubstr("another coordinator holds"));
  EXPECT_THAT(start(other, absl::StrCat("127.0.0.1:", port.load()), lease),
              HasSubstr("Address already in use"));
  EXPECT_THAT(start(other, "nonsense", lease), HasSubstr("no port"));
  EXPECT_THAT(start(other, "127.0.0.1:0", absl::ZeroDuration()), HasSubstr("lease"));
  EXPECT_THAT(start(other, "127.0.0.1:0", lease, "nonsense"), HasSubstr("metrics"));
  EXPECT_FALSE(std::filesystem::exists(other));
  EXPECT_EQ(Client::Create({.coordinator = "nonsense"}).status().code(), absl::StatusCode::kInvalidArgument);
  const auto stranger =
      *Client::Create({.coordinator = absl::StrCat("127.0.0.1:", port.load()), .job = "another job"});
  Joined("a");
  EXPECT_EQ(stranger->Join(Soon()).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(NewClient("x")->AdvanceEpoch({0, 1, {"x"}, "", 0, ""}, Soon()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

struct EtcdCoordinatorTest : CoordinatorTest {
  void SetUp() override {
    etcd = EtcdProcess::Start();
    if (etcd == nullptr) GTEST_SKIP() << "no etcd starts here; tools/setup.sh installs Debian's etcd-server";
    state = absl::StrCat("etcd://", etcd->address(), "/cohort/job");
    events = folder.Path("events.jsonl");
  }
  std::unique_ptr<EtcdProcess> etcd;
};

TEST_F(EtcdCoordinatorTest, TheStateIsThere) {
  Start();
  const auto a = Joined("a");
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a"}, "", 0, ""}, Soon()).ok());
  Restart();
  EXPECT_EQ(Describe().epoch().number(), 1u);
  EXPECT_EQ(Describe().incarnation(), 2u);
  EXPECT_TRUE(std::filesystem::exists(events));
}

TEST_F(EtcdCoordinatorTest, TheNextCoordinatorFencesTheFormer) {
  Start();
  const auto a = Joined("a");
  const std::unique_ptr<Coordinator> former = std::move(coordinator);
  port = 0;
  events = folder.Path("others.jsonl");
  Start();
  // The former one notices with its next write, refuses it, and wants to end.
  EXPECT_EQ(a->AdvanceEpoch({0, 1, {"a"}, "", 0, ""}, absl::Now() + absl::Seconds(1)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Eventually([&] { return !former->health().ok(); }));
  EXPECT_THAT(std::string(former->health().message()), HasSubstr("has taken over"));
  EXPECT_TRUE(coordinator->health().ok());
  EXPECT_EQ(Describe().epoch().number(), 0u);
}

TEST_F(EtcdCoordinatorTest, AnEtcdThatWasAwayIsGoneOnWith) {
  lease = absl::Seconds(2);
  Start();
  const auto a = Joined("a");
  etcd->Pause();
  EXPECT_FALSE(a->AdvanceEpoch({0, 1, {"a"}, "", 0, ""}, absl::Now() + absl::Seconds(1)).ok());
  etcd->Resume();
  const auto advanced = a->AdvanceEpoch({0, 1, {"a"}, "", 0, ""}, Soon());
  EXPECT_TRUE(advanced.ok()) << advanced.status();
  EXPECT_TRUE(coordinator->health().ok()) << coordinator->health();
}

}  // namespace
}  // namespace cohort::cluster
