#include "tools/cohort/elastic/top_screen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "cohort/v1/elastic.pb.h"
#include "runtime/config/config.h"

namespace cohort::tools {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TopView Job(int members) {
  TopView view;
  view.coordinator = "host:1234";
  view.job.set_job("job");
  view.job.set_incarnation(2);
  view.job.set_time(1'800'000'100);
  view.job.set_started_time(1'800'000'000);
  view.job.mutable_epoch()->set_number(3);
  view.job.mutable_epoch()->set_why("lost 2");
  view.job.set_step(120);
  view.job.set_tokens_per_second(5120);
  for (int i = 0; i < members; ++i) {
    v1::Member& member = *view.job.add_members();
    member.set_id(i + 1);
    member.set_name(absl::StrCat("member ", i));
    member.set_host("host");
    member.set_pid(1000 + i);
    member.set_rank(i);
    member.set_state(v1::MEMBER_STATE_LIVE);
    member.mutable_report()->set_step(120);
    member.mutable_report()->set_phase("block forward");
    member.mutable_report()->set_compute_seconds(0.25);
    member.set_lease_left_seconds(1.5);
  }
  for (int i = 0; i < 20; ++i) {
    v1::Event& event = *view.job.add_events();
    event.set_revision(static_cast<uint64_t>(i) + 1);
    event.set_kind(v1::EVENT_KIND_SNAPSHOT);
    event.set_words(absl::StrCat("event ", i));
  }
  return view;
}

std::string Text(const TopView& view, int width, int height) {
  return absl::StrJoin(TopScreen(view, width, height), "\n");
}

TEST(TopScreenTest, ShowsMembersEpochSpeedAndEvents) {
  TopView view = Job(4);
  view.mesh = "4 ranks: shard 4, zero-3";
  view.job.add_waiting()->set_name("newcomer");
  const std::string text = Text(view, 160, 50);
  for (const char* words :
       {"job job", "coordinator 2 at host:1234", "epoch 3", "4 ranks: shard 4, zero-3", "lost 2", "step 120",
        "5.1k tokens/s", "4 live", "1 newcomer waiting", "block forward", "0.250", "1.5s", "event 19"}) {
    EXPECT_THAT(text, HasSubstr(words));
  }
  EXPECT_THAT(text, Not(HasSubstr("event 3\n")));  // only the latest
}

TEST(TopScreenTest, FitsEverySize) {
  for (const int width : {1, 7, 20, 80, 200}) {
    for (int height = 0; height < 40; ++height) {
      const std::vector<std::string> lines = TopScreen(Job(30), width, height);
      EXPECT_LE(lines.size(), static_cast<size_t>(height));
      for (const std::string& line : lines) EXPECT_LE(line.size(), static_cast<size_t>(width)) << line;
    }
  }
}

TEST(TopScreenTest, WhoIsInTroubleComesFirstAndTheRestIsCounted) {
  TopView view = Job(1000);
  view.job.mutable_members(700)->set_verdict("straggler: computes 2.0 times as long as the others");
  const std::vector<std::string> lines = TopScreen(view, 160, 24);
  EXPECT_EQ(lines.size(), 24u);
  const std::string text = absl::StrJoin(lines, "\n");
  EXPECT_LT(text.find("member 700"), text.find("member 0 "));
  EXPECT_THAT(text, HasSubstr("straggler: computes 2.0 times"));
  EXPECT_THAT(text, HasSubstr(" more"));
}

TEST(TopScreenTest, SaysThatTheCoordinatorIsAway) {
  TopView view = Job(2);
  view.away_seconds = 7;
  EXPECT_THAT(Text(view, 160, 24), HasSubstr("host:1234 is away since 7 s"));
  EXPECT_THAT(TopLine(view), HasSubstr("away"));
  EXPECT_TRUE(nlohmann::json::parse(TopJson(view))["away"]);
}

// Texts come from other processes: they must not command the terminal.
TEST(TopScreenTest, NothingThatMembersSayReachesTheTerminalAsACommand) {
  TopView view = Job(1);
  view.job.mutable_members(0)->set_name("a\x1b[2Jb");
  view.job.mutable_members(0)->mutable_report()->set_phase("\x1b]0;title\x07");
  view.job.mutable_events(19)->set_words("line\nline\r\x1b[H");
  for (const std::string& line : TopScreen(view, 200, 50)) {
    for (const char c : line) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << line;
  }
}

TEST(TopScreenTest, OneObjectALine) {
  TopView view = Job(3);
  view.job.mutable_members(1)->clear_report();
  view.job.mutable_members(1)->set_report_age_seconds(-1);
  const std::string text = TopJson(view);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["members"].size(), 3u);
  EXPECT_EQ(json["members"][0]["phase"], "block forward");
  EXPECT_FALSE(json["members"][1].contains("step"));
  EXPECT_EQ(json["epoch"]["number"], 3);
  EXPECT_EQ(json["events"].back()["words"], "event 19");
}

TEST(TopScreenTest, AnArrangementThatIsNoMeshHasNoWords) {
  EXPECT_EQ(MeshWords(""), "");
  EXPECT_EQ(MeshWords("of another program"), "");
  EXPECT_EQ(MeshWords(absl::Base64Escape("x")), "");
  EXPECT_EQ(MeshWords(absl::Base64Escape(v1::ElasticMesh().SerializeAsString())), "");
  v1::ElasticMesh mesh;
  auto& model = *mesh.mutable_config()->mutable_model();
  model.set_model_type("llama");
  model.set_hidden_size(32);
  model.set_num_hidden_layers(2);
  model.set_num_attention_heads(2);
  mesh.mutable_config()->mutable_parallel()->set_tensor(2);
  mesh.mutable_config()->mutable_parallel()->set_sharding("zero-1");
  runtime::ApplyDefaults(*mesh.mutable_config(), {.ranks = 4});
  for (int i = 0; i < 4; ++i) mesh.add_members(i), mesh.add_host_of(0);
  EXPECT_THAT(MeshWords(absl::Base64Escape(mesh.SerializeAsString())), HasSubstr("4 ranks"));
}

}  // namespace
}  // namespace cohort::tools
