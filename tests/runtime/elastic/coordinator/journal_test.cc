#include "runtime/elastic/coordinator/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <signal.h>
#include <sys/resource.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/coordinator/policy.h"
#include "runtime/file.h"
#include "tests/runtime/elastic/coordinator/etcd_process.h"
#include "tests/support/temp_folder.h"

namespace cohort::cluster {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::unique_ptr<Journal> Open(const std::string& state) {
  auto journal = OpenJournal(state);
  EXPECT_TRUE(journal.ok()) << journal.status();
  return journal.ok() ? *std::move(journal) : nullptr;
}

Journal::Contents Load(Journal& journal) {
  auto contents = journal.Load();
  EXPECT_TRUE(contents.ok()) << contents.status();
  return contents.ok() ? *std::move(contents) : Journal::Contents();
}

// What every journal promises.
class JournalTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (GetParam() == std::string("file")) {
      state_ = folder_.Path("state");
      return;
    }
    etcd_ = EtcdProcess::Start();
    if (etcd_ == nullptr) GTEST_SKIP() << "no etcd starts here; tools/setup.sh installs Debian's etcd-server";
    state_ = absl::StrCat("etcd://", etcd_->address(), "/cohort/job");
  }

  TempFolder folder_;
  std::unique_ptr<EtcdProcess> etcd_;
  std::string state_;
};

TEST_P(JournalTest, WhatWasAppendedIsThere) {
  const std::string bytes("\0any\nbytes\xff", 11);
  {
    const auto journal = Open(state_);
    EXPECT_EQ(Load(*journal).next, 0u);
    EXPECT_TRUE(journal->Append(0, {"one", bytes}).ok());
    EXPECT_TRUE(journal->Append(2, {""}).ok());
  }
  const auto journal = Open(state_);
  const Journal::Contents contents = Load(*journal);
  EXPECT_THAT(contents.records, ElementsAre("one", bytes, ""));
  EXPECT_EQ(contents.next, 3u);
  EXPECT_THAT(contents.warning, IsEmpty());
}

TEST_P(JournalTest, AnotherIndexThanTheNextIsRefused) {
  const auto journal = Open(state_);
  EXPECT_EQ(journal->Append(0, {"unread"}).code(), absl::StatusCode::kFailedPrecondition);
  Load(*journal);
  EXPECT_EQ(journal->Append(1, {"one"}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(journal->Append(0, {"one"}).ok());
  EXPECT_EQ(journal->Append(0, {"again"}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Load(*journal).records, ElementsAre("one"));
}

TEST_P(JournalTest, ASnapshotTakesThePlaceOfRecords) {
  {
    const auto journal = Open(state_);
    Load(*journal);
    EXPECT_TRUE(journal->Compact(0, "nothing yet").ok());
    EXPECT_TRUE(journal->Append(0, {"one", "two"}).ok());
    EXPECT_EQ(journal->Compact(1, "one").code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(journal->Compact(2, "one and two").ok());
    EXPECT_TRUE(journal->Append(2, {"three"}).ok());
  }
  const auto journal = Open(state_);
  const Journal::Contents contents = Load(*journal);
  EXPECT_EQ(contents.snapshot, "one and two");
  EXPECT_THAT(contents.records, ElementsAre("three"));
  EXPECT_EQ(contents.next, 3u);
}

TEST_P(JournalTest, LargeTextsToo) {
  std::string large(9 * policy::kEtcdPartBytes + 77, 'x');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 2654435761u >> 13);
  {
    const auto journal = Open(state_);
    Load(*journal);
    for (uint64_t turn = 0; turn < 2; ++turn) {
      EXPECT_TRUE(journal->Append(2 * turn, {"small", large + "record"}).ok());
      EXPECT_TRUE(journal->Compact(2 * turn + 2, large + "snapshot").ok());
    }
    EXPECT_TRUE(journal->Append(4, {large}).ok());
  }
  const auto journal = Open(state_);
  const Journal::Contents contents = Load(*journal);
  EXPECT_TRUE(contents.snapshot == large + "snapshot");
  ASSERT_EQ(contents.records.size(), 1u);
  EXPECT_TRUE(contents.records[0] == large);
}

INSTANTIATE_TEST_SUITE_P(All, JournalTest, ::testing::Values("file", "etcd"),
                         [](const auto& info) { return std::string(info.param); });

struct FileJournalTest : ::testing::Test {
  std::string path() const { return folder.Path("journal"); }
  // A journal of three appends, closed.
  std::string Write() {
    const auto journal = Open(folder.path());
    Load(*journal);
    EXPECT_TRUE(journal->Append(0, {"one", "two"}).ok());
    EXPECT_TRUE(journal->Append(2, {"three"}).ok());
    EXPECT_TRUE(journal->Append(3, {"four", "five"}).ok());
    return *runtime::ReadFile(path());
  }

  TempFolder folder;
};

// A crash in the middle of a write: at every byte.
TEST_F(FileJournalTest, ATornEndIsCutOff) {
  const std::string whole = Write();
  const size_t last = whole.size() - (16 + 4 + 4 + 4 + 4);  // where the last frame begins
  for (size_t length = last; length < whole.size(); ++length) {
    folder.Write("journal", whole.substr(0, length));
    const auto journal = Open(folder.path());
    const Journal::Contents contents = Load(*journal);
    EXPECT_THAT(contents.records, ElementsAre("one", "two", "three"));
    EXPECT_EQ(contents.warning.empty(), length == last) << contents.warning;
    ASSERT_TRUE(journal->Append(3, {"six"}).ok());
    EXPECT_THAT(Load(*journal).records, ElementsAre("one", "two", "three", "six"));
  }
  // The file was made longer, and its bytes were not there yet.
  folder.Write("journal", whole.substr(0, last) + std::string(4096, '\0'));
  EXPECT_THAT(Load(*Open(folder.path())).records, ElementsAre("one", "two", "three"));
}

TEST_F(FileJournalTest, DamageBeforeTheEndIsNeverPassedOver) {
  const std::string whole = Write();
  const size_t last = whole.size() - (16 + 4 + 4 + 4 + 4);
  for (size_t at = 0; at < last; ++at) {
    std::string broken = whole;
    broken[at] = static_cast<char>(broken[at] ^ 0x40);
    folder.Write("journal", broken);
    const auto contents = Open(folder.path())->Load();
    ASSERT_EQ(contents.status().code(), absl::StatusCode::kDataLoss) << "byte " << at;
    EXPECT_THAT(std::string(contents.status().message()), HasSubstr(path()));
    EXPECT_EQ(*runtime::ReadFile(path()), broken);  // for whoever repairs it
  }
  for (const std::string& text : {std::string(), std::string("{}"), whole.substr(0, 20)}) {
    folder.Write("journal", text);
    EXPECT_EQ(Open(folder.path())->Load().status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(FileJournalTest, OneProcessHoldsTheFolder) {
  auto journal = Open(folder.path());
  const auto second = OpenJournal(folder.path());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(absl::StrCat("process ", getpid())));
  journal.reset();
  EXPECT_TRUE(OpenJournal(folder.path()).ok());
}

TEST_F(FileJournalTest, AFullDiskIsNamedAndHarmsNothing) {
  signal(SIGXFSZ, SIG_IGN);
  const auto journal = Open(folder.path());
  Load(*journal);
  ASSERT_TRUE(journal->Append(0, {"one"}).ok());
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {4096, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status full = journal->Append(1, {std::string(8000, 'x')});
  const absl::Status no_snapshot = (Load(*journal), journal->Compact(1, std::string(8000, 'x')));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_THAT(std::string(full.message()), HasSubstr("make room"));
  EXPECT_EQ(no_snapshot.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Load(*journal).records, ElementsAre("one"));
  EXPECT_TRUE(journal->Append(1, {"two"}).ok());
}

TEST_F(FileJournalTest, PlacesThatAreNoneAreNamed) {
  folder.Write("file", "text");
  const auto below_a_file = OpenJournal(folder.Path("file") + "/state");
  EXPECT_FALSE(below_a_file.ok());
  EXPECT_THAT(std::string(below_a_file.status().message()), HasSubstr(folder.Path("file")));
  EXPECT_FALSE(OpenJournal("").ok());
  EXPECT_FALSE(OpenJournal("/proc/nowhere").ok());
  for (const char* place :
       {"etcd://", "etcd://host:2379", "etcd://host:2379/", "etcd://host/prefix", "etcd://:1/prefix"}) {
    EXPECT_EQ(OpenJournal(place).status().code(), absl::StatusCode::kInvalidArgument) << place;
  }
}

struct EtcdJournalTest : ::testing::Test {
  void SetUp() override {
    etcd = EtcdProcess::Start();
    if (etcd == nullptr) GTEST_SKIP() << "no etcd starts here; tools/setup.sh installs Debian's etcd-server";
    state = absl::StrCat("etcd://", etcd->address(), "/cohort/job");
  }
  std::unique_ptr<EtcdProcess> etcd;
  std::string state;
};

TEST_F(EtcdJournalTest, WhoWroteLastHoldsIt) {
  const auto first = Open(state), second = Open(state);
  Load(*first);
  ASSERT_TRUE(first->Append(0, {"first"}).ok());
  EXPECT_THAT(Load(*second).records, ElementsAre("first"));
  ASSERT_TRUE(second->Append(1, {"second"}).ok());
  for (const absl::Status& fenced : {first->Append(1, {"late"}), (Load(*first), second->Append(2, {"again"}),
                                                                  first->Compact(2, "late"))}) {
    EXPECT_EQ(fenced.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(fenced.message()), HasSubstr("another coordinator"));
  }
  EXPECT_THAT(Load(*second).records, ElementsAre("first", "second", "again"));
}

TEST_F(EtcdJournalTest, PrefixesAreApart) {
  const auto one = Open(state), other = Open(state + "2");
  Load(*one);
  Load(*other);
  ASSERT_TRUE(one->Append(0, {"one"}).ok());
  ASSERT_TRUE(other->Append(0, {"other"}).ok());
  EXPECT_THAT(Load(*one).records, ElementsAre("one"));
  EXPECT_THAT(Load(*other).records, ElementsAre("other"));
}

TEST_F(EtcdJournalTest, AnEtcdThatIsAwayIsUnavailable) {
  const auto journal =
      Open("etcd://127.0.0.1:1," + etcd->address() + "/cohort/job");  // the second one answers
  Load(*journal);
  ASSERT_TRUE(journal->Append(0, {"one"}).ok());
  etcd->Pause();
  const absl::Status away = journal->Append(1, {"two"});
  etcd->Resume();
  EXPECT_EQ(away.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(away.message()), HasSubstr(etcd->address()));
  // It may have been written: reading says so, and it is not written later.
  const Journal::Contents contents = Load(*journal);
  EXPECT_TRUE(journal->Append(contents.next, {"three"}).ok());
}

// Stands before an etcd, and keeps transactions back where told to: to their sender they are lost.
class SlowPath {
 public:
  explicit SlowPath(const std::string& etcd) : etcd_(etcd) {
    server_.Post(".*", [this](const httplib::Request& request, httplib::Response& response) {
      if (keep_back && request.path == "/v3/kv/txn") {
        keep_back = false;
        late_ = request.body;
        response.status = 504;
        return;
      }
      const httplib::Result answer =
          httplib::Client("http://" + etcd_).Post(request.path, request.body, "application/json");
      response.status = answer ? answer->status : 504;
      if (answer) response.set_content(answer->body, "application/json");
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  ~SlowPath() {
    server_.stop();
    thread_.join();
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  // What was kept back arrives; whether its comparison held.
  bool Deliver() {
    const httplib::Result answer =
        httplib::Client("http://" + etcd_).Post("/v3/kv/txn", late_, "application/json");
    EXPECT_TRUE(answer && answer->status == 200);
    return answer && answer->body.find("\"succeeded\":true") != std::string::npos;
  }

  std::atomic<bool> keep_back = false;

 private:
  const std::string etcd_;
  httplib::Server server_;
  std::thread thread_;
  int port_ = -1;
  std::string late_;
};

TEST_F(EtcdJournalTest, AWriteThatComesLateIsThereWhenRead) {
  SlowPath path(etcd->address());
  const auto journal = Open(absl::StrCat("etcd://", path.address(), "/cohort/job"));
  Load(*journal);
  ASSERT_TRUE(journal->Append(0, {"one"}).ok());
  path.keep_back = true;
  EXPECT_EQ(journal->Append(1, {"two"}).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(path.Deliver());
  EXPECT_THAT(Load(*journal).records, ElementsAre("one", "two"));
  EXPECT_TRUE(journal->Append(2, {"three"}).ok());
}

TEST_F(EtcdJournalTest, AWriteThatComesAfterReadingIsNotDone) {
  SlowPath path(etcd->address());
  const auto journal = Open(absl::StrCat("etcd://", path.address(), "/cohort/job"));
  Load(*journal);
  for (const std::vector<std::string>& records : {std::vector<std::string>{"one"}, {"one", "two"}}) {
    const uint64_t next = records.size() - 1;  // the first write of all, too
    path.keep_back = true;
    EXPECT_EQ(journal->Append(next, {"lost"}).code(), absl::StatusCode::kUnavailable);
    Load(*journal);
    EXPECT_FALSE(path.Deliver());
    EXPECT_TRUE(journal->Append(next, {records.back()}).ok());
    EXPECT_EQ(Load(*journal).records, records);
  }
}

TEST_F(EtcdJournalTest, WhoLostAWriteDoesNotTakeFromWhoWroteSince) {
  SlowPath path(etcd->address());
  const auto first = Open(absl::StrCat("etcd://", path.address(), "/cohort/job")), second = Open(state);
  Load(*first);
  path.keep_back = true;
  EXPECT_EQ(first->Append(0, {"lost"}).code(), absl::StatusCode::kUnavailable);
  Load(*second);
  ASSERT_TRUE(second->Append(0, {"second"}).ok());
  EXPECT_THAT(Load(*first).records, ElementsAre("second"));
  EXPECT_FALSE(path.Deliver());
  EXPECT_TRUE(second->Append(1, {"again"}).ok());
}

}  // namespace
}  // namespace cohort::cluster
