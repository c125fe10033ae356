// The agreement, driven through thousands of random runs of a simulated network: members die at any point, also
// halfway through sending, stop and come back, and networks lose and cut. Nobody may ever decide another value.
#include "comm/membership/agreement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <string>

#include "absl/strings/str_join.h"

namespace cohort::comm {
namespace {

constexpr int64_t kPatience = 1000;

struct Faults {
  int crashes = 0;
  int stops = 0;         // for a while, then it goes on
  double loss = 0;       // of each message
  bool cuts = false;     // links between two sides are cut for a while
  bool detector = true;  // the crashed are reported (else only patience tells)
  bool quorum = false;
  bool tie = false;  // somebody outside says which half goes on: the first that asks
  int64_t longest_delay = 20;
};

class Network {
 public:
  Network(int size, const Faults& faults, uint32_t seed) : random_(seed), faults_(faults), size_(size) {
    std::vector<int> members;
    for (int i = 0; i < size; ++i) members.push_back(i);
    for (int i = 0; i < size; ++i) {
      Agreement::Options options;
      options.self = i;
      options.members = members;
      options.quorum = faults.quorum;
      if (faults.tie) {
        options.tie = [this](const std::vector<int>& half) {
          if (half_.empty()) half_ = half;
          return half_ == half;
        };
      }
      options.patience = kPatience;
      options.vote = std::to_string(i);
      options.compose = [](const std::map<int, Agreement::Vote>& votes) {
        return absl::StrJoin(votes, ",",
                             [](std::string* out, const auto& vote) { out->append(vote.second.text); });
      };
      Node node;
      node.enters = Pick(0, 200);
      node.agreement = std::make_unique<Agreement>(std::move(options), 0);
      nodes_.push_back(std::move(node));
    }
    for (int i = 0; i < faults.crashes; ++i) nodes_[Pick(0, size - 1)].crashes = Pick(0, 600);
    for (int i = 0; i < faults.stops; ++i) {
      Node& node = nodes_[Pick(0, size - 1)];
      node.stops = Pick(0, 600);
      node.resumes = node.stops + Pick(1, 6 * kPatience);
    }
    if (faults.cuts) {
      cut_from_ = Pick(0, 400);
      cut_until_ = cut_from_ + Pick(1, 8 * kPatience);
      one_way_ = Pick(0, 1) == 1;
      for (int i = 0; i < size; ++i) side_.push_back(Pick(0, 1));
    }
  }

  void Run(int64_t until) {
    for (now_ = 0; now_ < until && !AllOver(); now_ += 5) {
      for (int i = 0; i < size_; ++i) Step(i);
    }
  }

  bool AllOver() const {
    return std::all_of(nodes_.begin(), nodes_.end(), [&](const Node& node) {
      return node.dead || node.agreement->decision().has_value() || node.agreement->no_quorum();
    });
  }
  std::set<std::string> Decisions() const {
    std::set<std::string> all;
    for (const Node& node : nodes_) {
      if (node.agreement->decision().has_value()) all.insert(*node.agreement->decision());
    }
    return all;
  }
  bool dead(int i) const { return nodes_[i].dead; }
  const Agreement& agreement(int i) const { return *nodes_[i].agreement; }

 private:
  struct Node {
    std::unique_ptr<Agreement> agreement;
    int64_t enters = 0, crashes = INT64_MAX, stops = INT64_MAX, resumes = 0;
    bool dead = false;
    std::map<int, int64_t> hears_of;  // of a death, when
    struct Mail {
      int from;
      int64_t at;
      AgreementMessage message;
    };
    std::deque<Mail> mail;
  };

  int64_t Pick(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

  void Step(int i) {
    Node& node = nodes_[i];
    if (node.dead || now_ < node.enters || (now_ >= node.stops && now_ < node.resumes)) return;
    for (auto it = node.mail.begin(); it != node.mail.end();) {
      if (it->at > now_) {
        ++it;
        continue;
      }
      node.agreement->OnMessage(it->from, it->message);
      it = node.mail.erase(it);
      if (!Deliver(i)) return;
    }
    for (const auto& [peer, at] : node.hears_of) {
      if (at <= now_) node.agreement->OnLost(peer);
    }
    node.agreement->Tick(now_);
    Deliver(i);
  }

  // False: it died on the way.
  bool Deliver(int i) {
    Node& node = nodes_[i];
    for (auto& [to, message] : node.agreement->TakeOutbox()) {
      if (now_ >= node.crashes && Pick(0, 3) == 0) return Die(i);
      const bool cut = faults_.cuts && now_ >= cut_from_ && now_ < cut_until_ && side_[i] != side_[to] &&
                       (!one_way_ || side_[i] == 0);
      if (cut || std::uniform_real_distribution<>(0, 1)(random_) < faults_.loss) continue;
      // In order for each pair of members.
      int64_t at = now_ + Pick(1, faults_.longest_delay);
      for (const auto& other : nodes_[to].mail) {
        if (other.from == i) at = std::max(at, other.at);
      }
      nodes_[to].mail.push_back({i, at, std::move(message)});
    }
    return node.crashes == INT64_MAX || now_ < node.crashes + 50 || Die(i);
  }

  bool Die(int i) {
    nodes_[i].dead = true;
    for (int other = 0; other < size_ && faults_.detector; ++other) {
      nodes_[other].hears_of[i] = now_ + faults_.longest_delay + Pick(1, 100);
    }
    return false;
  }

  std::mt19937 random_;
  const Faults faults_;
  const int size_;
  std::vector<Node> nodes_;
  int64_t now_ = 0;
  int64_t cut_from_ = 0, cut_until_ = 0;
  bool one_way_ = false;
  std::vector<int> side_;
  std::vector<int> half_;
};

void Expect(const Faults& faults, int runs, bool everyone_ends) {
  for (int run = 0; run < runs; ++run) {
    const int size = 1 + run % 8;
    Network network(size, faults, static_cast<uint32_t>(run));
    network.Run(200 * kPatience);
    const std::set<std::string> decisions = network.Decisions();
    ASSERT_LE(decisions.size(), 1u) << "run " << run << " of " << size << " members decided "
                                    << absl::StrJoin(decisions, " and ");
    if (everyone_ends) {
      ASSERT_TRUE(network.AllOver()) << "run " << run << " of " << size << " hangs";
    }
    if (decisions.size() == 1 && faults.stops == 0 && faults.loss == 0 && !faults.cuts && faults.detector) {
      for (int i = 0; i < size; ++i) {  // nobody who lives is left out
        const std::string name = std::to_string(i);
        if (!network.dead(i)) {
          ASSERT_NE(decisions.begin()->find(name), std::string::npos) << "run " << run << " lost " << i;
        }
      }
    }
  }
}

TEST(Agreement, AllAgreeWithoutFaults) { Expect({}, 200, true); }

TEST(Agreement, MembersDieAtAnyPoint) {
  for (const int crashes : {1, 2, 4, 7}) Expect({.crashes = crashes}, 1000, true);
}

TEST(Agreement, DeathsFoundByPatienceAlone) { Expect({.crashes = 2, .detector = false}, 500, true); }

TEST(Agreement, MembersStopAndComeBack) {
  for (const int stops : {1, 3, 8}) Expect({.crashes = 1, .stops = stops}, 500, true);
}

TEST(Agreement, MessagesAreLost) { Expect({.crashes = 1, .loss = 0.1, .quorum = true}, 500, true); }

TEST(Agreement, WithAQuorumNoCutEverMakesTwoGroups) {
  for (const int64_t delay : {20, 300, 3000}) {
    Expect({.crashes = 1,
            .stops = 2,
            .loss = 0.05,
            .cuts = true,
            .detector = false,
            .quorum = true,
            .longest_delay = delay},
           500, delay < kPatience);
  }
}

TEST(Agreement, NorDoesATieThatSomebodyElseDecides) {
  for (const int64_t delay : {20, 300, 3000}) {
    Expect({.crashes = 1,
            .stops = 2,
            .loss = 0.05,
            .cuts = true,
            .detector = false,
            .quorum = true,
            .tie = true,
            .longest_delay = delay},
           500, delay < kPatience);
  }
}

// The half without the lowest member goes on where it is told so, and the other half does not.
TEST(Agreement, ATieIsWonByWhoIsToldSo) {
  std::vector<std::unique_ptr<Agreement>> members;
  for (int i = 0; i < 4; ++i) {
    Agreement::Options options;
    options.self = i;
    options.members = {0, 1, 2, 3};
    options.quorum = true;
    options.tie = [](const std::vector<int>& half) { return half == std::vector<int>{2, 3}; };
    options.patience = kPatience;
    options.compose = [](const auto& votes) { return std::to_string(votes.size()); };
    members.push_back(std::make_unique<Agreement>(options, 0));
  }
  for (int64_t now = 0; now < 20 * kPatience; now += 50) {
    for (int i = 0; i < 4; ++i) {
      members[i]->Tick(now);
      for (auto& [to, message] : members[i]->TakeOutbox()) {
        if ((i < 2) == (to < 2)) members[to]->OnMessage(i, message);
      }
    }
  }
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(members[i]->no_quorum(), i < 2) << i;
    EXPECT_EQ(members[i]->decision().value_or(""), i < 2 ? "" : "2") << i;
    EXPECT_EQ(members[i]->tied(), i >= 2) << i;
  }
}

// A cut for ever between two sides: the larger goes on, the smaller says that it is too small.
TEST(Agreement, TheMinorityStops) {
  std::vector<std::unique_ptr<Agreement>> members;
  for (int i = 0; i < 5; ++i) {
    Agreement::Options options;
    options.self = i;
    options.members = {0, 1, 2, 3, 4};
    options.quorum = true;
    options.patience = kPatience;
    options.compose = [](const auto& votes) { return std::to_string(votes.size()); };
    members.push_back(std::make_unique<Agreement>(options, 0));
  }
  for (int64_t now = 0; now < 20 * kPatience; now += 50) {
    for (int i = 0; i < 5; ++i) {
      members[i]->Tick(now);
      for (auto& [to, message] : members[i]->TakeOutbox()) {
        if ((i < 2) == (to < 2)) members[to]->OnMessage(i, message);
      }
    }
  }
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(members[i]->no_quorum(), i < 2) << i;
    EXPECT_EQ(members[i]->decision().value_or(""), i < 2 ? "" : "3") << i;
    EXPECT_FALSE(members[i]->tied()) << i;
  }
}

}  // namespace
}  // namespace cohort::comm
