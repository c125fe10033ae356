// The coordinator and its clients in one process, over real sockets.
#include "runtime/elastic/coordinator/coordinator.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <signal.h>
#include <sys/resource.h>

#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "cohort/v1/cluster.grpc.pb.h"
#include "comm/communicator.h"
#include "runtime/elastic/coordinator/board.h"
#include "runtime/elastic/coordinator/client.h"
#include "runtime/elastic/coordinator/rendezvous.h"
#include "runtime/file.h"
#include "tests/runtime/elastic/coordinator/etcd_process.h"
#include "tests/support/temp_folder.h"

namespace cohort::cluster {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

bool Eventually(const std::function<bool()>& condition) {
  for (const absl::Time end = Soon(); absl::Now() < end; absl::SleepFor(absl::Milliseconds(5))) {
    if (condition()) return true;
  }
  return false;
}

struct CoordinatorTest : ::testing::Test {
  void SetUp() override { state = folder.Path("state"); }

  // The first time on any port, then on the same.
  void Start() {
    CoordinatorOptions options;
    options.state = state;
    options.listen = absl::StrCat("127.0.0.1:", port);
    options.metrics = "127.0.0.1:0";
    options.lease = lease;
    options.events = events;
    auto started = Coordinator::Start(options);
    ASSERT_TRUE(started.ok()) << started.status();
    coordinator = *std::move(started);
    port = coordinator->port();
  }
  void Restart() {
    coordinator.reset();
    Start();
  }
  std::shared_ptr<Client> NewClient(const std::string& name, v1::MemberRole role = v1::MEMBER_ROLE_LAUNCHED) {
    ClientOptions options;
    options.coordinator = absl::StrCat("127.0.0.1:", port);
    options.job = "job";
    options.name = name;
    options.role = role;
    return *Client::Create(options);
  }
  std::shared_ptr<Client> Joined(const std::string& name, v1::MemberRole role = v1::MEMBER_ROLE_LAUNCHED) {
    auto client = NewClient(name, role);
    const absl::Status status = client->Join(Soon());
    EXPECT_TRUE(status.ok()) << status;
    return client;
  }
  v1::DescribeResponse Describe() {
    const auto described = NewClient("onlooker")->Describe(100, Soon());
    EXPECT_TRUE(described.ok()) << described.status();
    return described.value_or(v1::DescribeResponse());
  }
  std::vector<nlohmann::json> EventLines() {
    std::vector<nlohmann::json> lines;
    const std::string text = runtime::ReadFile(state + "/events.jsonl").value_or("");
    for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line));
    }
    return lines;
  }

  TempFolder folder;
  std::string state, events;
  absl::Duration lease = absl::Milliseconds(600);
  int port = 0;
  std::unique_ptr<Coordinator> coordinator;
};

TEST_F(CoordinatorTest, MembersRenewReportAndLeave) {
  Start();
  const auto a = Joined("a"), b = Joined("b");
  v1::StepReport report;
  report.set_step(12);
  report.set_phase("forward");
  report.set_compute_seconds(0.25);
  report.set_tokens(100);
  a->SetReport(report);
  ASSERT_TRUE(Eventually([&] { return Describe().members(0).report().step() == 12; }));
  EXPECT_EQ(a->AdvanceEpoch({0, 1, {"a", "b"}, "2 ranks", 1, "start"}, Soon())->number(), 1u);
  EXPECT_TRUE(Eventually([&] { return b->standing().in_epoch; }));
  EXPECT_DOUBLE_EQ(Describe().tokens_per_second(), 400);
  EXPECT_TRUE(NewClient("operator")->RequestLeave("b", "maintenance", Soon()).ok());
  EXPECT_TRUE(Eventually([&] { return b->standing().leave_requested; }));
  EXPECT_EQ(b->standing().leave_reason, "maintenance");
  EXPECT_TRUE(b->Leave("as asked", Soon()).ok());
  EXPECT_TRUE(Eventually([&] { return a->standing().gone == std::vector<std::string>{"b"}; }));
  a->Tell(v1::EVENT_KIND_RECONFIGURATION_ENDED, 13, "b has gone", 0.5);
  EXPECT_TRUE(a->Flush(Soon()));
  EXPECT_TRUE(Eventually([&] {
    const std::string text = coordinator->metrics();
    return text.find("cohort:cluster_reconfiguration_seconds_total 0.5") != std::string::npos &&
           text.find("cohort:cluster_members{state=\"live\"} 1") != std::string::npos &&
           text.find("cohort:cluster_step 12") != std::string::npos;
  })) << coordinator->metrics();
  httplib::Client http(absl::StrCat("http://127.0.0.1:", coordinator->metrics_port()));
  const auto page = http.Get("/metrics");
  ASSERT_TRUE(page);
  EXPECT_THAT(page->body, HasSubstr("cohort:cluster_epoch 1"));
}

TEST_F(CoordinatorTest, ADeadMembersLeaseRunsOut) {
  Start();
  auto a = Joined("a"), b = Joined("b");
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b"}, "", 0, ""}, Soon()).ok());
  b.reset();
  EXPECT_TRUE(Eventually([&] { return a->standing().gone == std::vector<std::string>{"b"}; }));
  ASSERT_TRUE(a->AdvanceEpoch({1, 2, {"a"}, "", 5, "without b"}, Soon()).ok());
  EXPECT_EQ(Describe().totals().leases_expired(), 1);
  EXPECT_THAT(coordinator->metrics(), HasSubstr("cohort:cluster_events_total{kind=\"lease_expired\"} 1"));
}

TEST_F(CoordinatorTest, TheOtherHalfIsFencedAndEvicted) {
  Start();
  const auto a = Joined("a"), b = Joined("b");
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b"}, "", 0, ""}, Soon()).ok());
  ASSERT_TRUE(a->AdvanceEpoch({1, 2, {"a"}, "", 0, ""}, Soon()).ok());
  const auto refused = b->AdvanceEpoch({1, 2, {"b"}, "", 0, ""}, Soon());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  const auto present = PresentEpoch(refused.status());
  ASSERT_TRUE(present.has_value());
  EXPECT_EQ(present->number(), 2u);
  EXPECT_THAT(present->members(), ElementsAre("a"));
  EXPECT_TRUE(Eventually([&] { return b->standing().evicted; }));
  EXPECT_THAT(b->standing().why, HasSubstr("epoch 2"));
  EXPECT_FALSE(a->standing().evicted);
}

// The names of a large group do not fit what gRPC lets an error carry.
TEST_F(CoordinatorTest, ARefusalNamesManyMembersToo) {
  Start();
  const auto a = Joined("a"), b = Joined("b");
  std::vector<std::string> members = {"a"};
  for (int i = 0; i < 10000; ++i) members.push_back(absl::StrCat("some member on some host, number ", i));
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, members, "", 0, ""}, Soon()).ok());
  const auto refused = b->AdvanceEpoch({0, 1, {"b"}, "", 0, ""}, Soon());
  ASSERT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition) << refused.status();
  EXPECT_EQ(PresentEpoch(refused.status())->members_size(), 10001);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("more"));
}

TEST_F(CoordinatorTest, ARestartChangesNothing) {
  Start();
  const auto a = Joined("a"), b = Joined("b");
  const int64_t id = a->standing().member_id;
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b"}, "arrangement", 3, ""}, Soon()).ok());
  const v1::DescribeResponse before = Describe();
  coordinator.reset();
  ASSERT_TRUE(Eventually([&] { return !a->standing().reachable && !b->standing().reachable; }));
  a->Tell(v1::EVENT_KIND_NOTE, 4, "told while nobody listens");
  absl::SleepFor(2 * lease);  // longer than a lease
  Start();
  ASSERT_TRUE(Eventually([&] { return a->standing().incarnation == 2 && b->standing().incarnation == 2; }));
  EXPECT_TRUE(a->Flush(Soon()));
  absl::SleepFor(2 * lease);
  const v1::DescribeResponse after = Describe();
  EXPECT_EQ(after.epoch().SerializeAsString(), before.epoch().SerializeAsString());
  EXPECT_EQ(after.totals().leases_expired(), 0);
  EXPECT_EQ(after.members_size(), 2);
  EXPECT_EQ(a->standing().member_id, id);
  EXPECT_TRUE(a->standing().in_epoch);
  std::vector<std::string> kinds;
  uint64_t revision = 0;
  for (const nlohmann::json& line : EventLines()) {
    kinds.push_back(line["kind"]);
    EXPECT_EQ(line["revision"], ++revision);
  }
  EXPECT_THAT(kinds, ElementsAre("coordinator_started", "member_joined", "member_joined", "epoch",
                                 "coordinator_started", "note"));
}

// Members advance while the coordinator is away, and tell it later: in order, or the last one alone.
TEST_F(CoordinatorTest, EpochsOfItsAbsenceAreTold) {
  Start();
  const auto a = Joined("a"), b = Joined("b"), c = Joined("c");
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b", "c"}, "", 0, ""}, Soon()).ok());
  ASSERT_TRUE(Eventually([&] { return c->standing().in_epoch; }));
  coordinator.reset();
  a->RecordEpoch({1, 2, {"a", "b", "c"}, "", 1, "again"});
  b->RecordEpoch({2, 3, {"a", "b"}, "", 2, "without c"});  // another leads now, who has not led before
  const absl::Time begin = absl::Now();
  EXPECT_EQ(a->AdvanceEpoch({3, 4, {"a"}, "", 3, ""}, absl::Now() + absl::Milliseconds(300)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  Start();
  EXPECT_TRUE(a->Flush(Soon()));
  EXPECT_TRUE(b->Flush(Soon()));
  ASSERT_TRUE(Eventually([&] { return Describe().epoch().number() == 3; }));
  EXPECT_TRUE(Eventually([&] { return c->standing().evicted; }));
  EXPECT_FALSE(a->standing().evicted);
  EXPECT_FALSE(b->standing().evicted);
}

TEST_F(CoordinatorTest, ALostStateIsToldAnew) {
  Start();
  const auto a = Joined("a"), b = Joined("b"), c = Joined("c");
  ASSERT_TRUE(a->AdvanceEpoch({0, 1, {"a", "b", "c"}, "", 0, ""}, Soon()).ok());
  ASSERT_TRUE(a->AdvanceEpoch({1, 2, {"a", "b"}, "arrangement", 0, ""}, Soon()).ok());
  ASSERT_TRUE(Eventually([&] { return b->standing().epoch == 2 && c->standing().evicted; }));
  coordinator.reset();
  std::filesystem::remove_all(state);
  Start();
  ASSERT_TRUE(Eventually([&] { return a->standing().in_epoch && a->standing().incarnation == 1; }));
  EXPECT_EQ(Describe().epoch().arrangement(), "arrangement");
  ASSERT_TRUE(Eventually([&] {
    const v1::DescribeResponse all = Describe();
    return all.members_size() == 3 &&
           all.members(0).rank() + all.members(1).rank() + all.members(2).rank() == 0;
  }));
  EXPECT_FALSE(b->standing().evicted);
}

TEST_F(CoordinatorTest, TheBoardOutlivesTheCoordinator) {
  Start();
  const auto newcomer = Joined("n", v1::MEMBER_ROLE_NEWCOMER), member = Joined("m");
  const auto posting = GrpcJoinBoard(newcomer), answering = GrpcJoinBoard(member);
  const std::string card("any\0bytes\xff", 10);
  ASSERT_TRUE(posting->Post("card 1", card).ok());
  EXPECT_TRUE(Eventually([&] { return member->standing().newcomers_waiting == 1; }));
  Restart();
  EXPECT_THAT(*answering->Waiting(), ElementsAre(std::pair<std::string, std::string>("card 1", card)));
  EXPECT_EQ(*posting->Answered("card 1"), std::nullopt);
  std::thread waiting([&] {
    std::optional<std::string> answer;
    EXPECT_TRUE(Eventually([&] {
      answer = *posting->Answered("card 1");
      return answer.has_value();
    }));
    EXPECT_EQ(answer, "come" + card);
  });
  ASSERT_TRUE(answering->Answer("card 1", "come" + card).ok());
  waiting.join();
  EXPECT_TRUE(answering->Waiting()->empty());
  EXPECT_TRUE(posting->Withdraw("card 1").ok());
  EXPECT_EQ(*posting->Answered("card 1"), std::nullopt);
  coordinator.reset();
  const auto hasty = GrpcJoinBoard(member, {absl::Milliseconds(50), true});
  EXPECT_TRUE(hasty->Waiting()->empty());
  EXPECT_EQ(hasty->Post("x", "y").code(), absl::StatusCode::kUnavailable);
}

// A communicator of ranks that meet at the coordinator, which goes and comes back meanwhile.
TEST_F(CoordinatorTest, RanksMeetThere) {
  Start();
  const int size = 3;
  std::vector<std::thread> ranks;
  std::atomic<int> met = 0;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      const auto meeting = GrpcRendezvous(NewClient("onlooker"), "launch", rank, size);
      EXPECT_EQ(meeting->rank(), rank);
      EXPECT_EQ(meeting->size(), size);
      absl::SleepFor(absl::Milliseconds(150 * rank));
      const std::string value = absl::StrCat("value of ", rank);
      ASSERT_TRUE(meeting->Put(absl::StrCat(rank), value).ok());
      ASSERT_TRUE(meeting->Put(absl::StrCat(rank), value).ok());
      for (int peer = 0; peer < size; ++peer) {
        const auto got = meeting->Get(absl::StrCat(peer), Soon());
        ASSERT_TRUE(got.ok()) << got.status();
        EXPECT_EQ(*got, absl::StrCat("value of ", peer));
      }
      ++met;
    });
  }
  absl::SleepFor(absl::Milliseconds(50));
  Restart();
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(met, size);
  const auto meeting = GrpcRendezvous(NewClient("onlooker"), "launch", 0, size);
  EXPECT_EQ(meeting->Put("0", "another").code(), absl::StatusCode::kAlreadyExists);
  const absl::Time begin = absl::Now();
  const auto missing = meeting->Get("missing", absl::Now() + absl::Milliseconds(200));
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("missing"));
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(200));
}

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
  a->Tell(v1::EVENT_KIND_STRAGGLER, 1, "first", 0, "b");
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

// Nothing of a client's that has no deadline waits for a coordinator that hangs.
TEST_F(CoordinatorTest, ATrainingThreadNeverWaits) {
  Start();
  auto a = Joined("a");
  coordinator.reset();
  const absl::Time begin = absl::Now();
  for (int i = 0; i < 10000; ++i) {
    v1::StepReport report;
    report.set_step(i);
    a->SetReport(report);
    a->Tell(v1::EVENT_KIND_NOTE, i, "note");
    a->RecordEpoch({0, 1, {"a"}, "", 0, ""});
    (void)a->standing();
  }
  EXPECT_LT(absl::Now() - begin, absl::Seconds(2));
  EXPECT_FALSE(a->Flush(absl::Now() + absl::Milliseconds(10)));
  a.reset();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(4));
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
  EXPECT_THAT(start(other, absl::StrCat("127.0.0.1:", port), lease), HasSubstr("Address already in use"));
  EXPECT_THAT(start(other, "nonsense", lease), HasSubstr("no port"));
  EXPECT_THAT(start(other, "127.0.0.1:0", absl::ZeroDuration()), HasSubstr("lease"));
  EXPECT_THAT(start(other, "127.0.0.1:0", lease, "nonsense"), HasSubstr("metrics"));
  EXPECT_FALSE(std::filesystem::exists(other));
  EXPECT_EQ(Client::Create({.coordinator = "nonsense"}).status().code(), absl::StatusCode::kInvalidArgument);
  const auto stranger =
      *Client::Create({.coordinator = absl::StrCat("127.0.0.1:", port), .job = "another job"});
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
