// Which algorithm is chosen: rules, tables, prices, and that all ranks choose the same.
#include "comm/tuner/tuner.h"
#include "comm/tuner/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>

#include "absl/strings/match.h"
#include "comm/tuner/agreement.h"
#include "comm/tuner/measure.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RunProcesses;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::shared_ptr<const HostMap> Hosts(int hosts, int ranks) {
  std::vector<int> host_of;
  for (int host = 0; host < hosts; ++host) host_of.insert(host_of.end(), ranks, host);
  return std::make_shared<const HostMap>(host_of);
}

Tuning With(const char* overrides) {
  Tuning tuning;
  auto rules = ParseOverrides(overrides);
  EXPECT_TRUE(rules.ok()) << rules.status();
  if (rules.ok()) tuning.overrides = *std::move(rules);
  return tuning;
}

std::string Chosen(const Tuning& tuning, std::shared_ptr<const HostMap> hosts, Operation operation,
                   size_t bytes) {
  return Tuner(std::make_shared<const Tuning>(tuning), std::move(hosts))
      .Choose(operation, bytes)
      .algorithm->name;
}

// Hosts at 1 Gbit/s.
Tuning SlowLinks() {
  Tuning tuning;
  for (const int level : {3, 4}) {
    tuning.prices.price[level] = {40e-6, 8e-9};
    tuning.prices.gap[level] = 3e-6;
  }
  return tuning;
}

TEST(TuningRules, OverridesAreReadWithUnitsPiecesAndSpaces) {
  const auto rules =
      ParseOverrides("all-reduce:0-32k=recursive_doubling, 32k-inf=ring/64k ; all-to-all=bruck;");
  ASSERT_TRUE(rules.ok()) << rules.status();
  ASSERT_EQ(rules->size(), 3u);
  EXPECT_STREQ((*rules)[0].algorithm->name, "recursive_doubling");
  EXPECT_EQ((*rules)[0].bytes, (TuningRange{0, 32 << 10}));
  EXPECT_EQ((*rules)[1].bytes, (TuningRange{32 << 10, TuningRange::kNoEnd}));
  EXPECT_EQ((*rules)[1].piece_bytes, 64u << 10);
  EXPECT_EQ((*rules)[2].operation, Operation::kAllToAll);
  EXPECT_TRUE((*rules)[2].bytes.everything());
}

TEST(TuningRules, ErrorsOfOverridesNameThePositionAndWhatIsKnown) {
  const std::pair<const char*, std::vector<const char*>> cases[] = {
      {"all-reduce=rink", {"character 12", "'rink'", "recursive_doubling, ring"}},
      {"all-reduce=bruck", {"character 12", "all-reduce has no algorithm 'bruck'"}},
      {"barrier=dissemination;all-redduce=ring", {"character 23", "'all-redduce'", "all-gather"}},
      {"send/recv=ring", {"character 1", "unknown operation"}},
      {"all-reduce", {"character 1", "names no algorithm"}},
      {"all-reduce:0-32q=ring", {"character 14", "'32q'"}},
      {"all-reduce:-=ring", {"no number"}},
      {"all-reduce:64k=ring", {"character 12", "no range"}},
      {"all-reduce:64k-1k=ring", {"holds nothing"}},
      {"all-reduce:0-99999999999g=ring", {"no number"}},
      {"all-reduce:0-64k=ring,32k-inf=direct", {"character 23", "overlap"}},
      {"all-reduce=direct/64k", {"character 19", "does not cut"}},
      {"all-reduce=ring/0", {"piece of no bytes"}},
      {"all-reduce:0-1k", {"RANGE=ALGORITHM"}},
  };
  for (const auto& [text, parts] : cases) {
    const auto rules = ParseOverrides(text);
    ASSERT_FALSE(rules.ok()) << text;
    for (const char* part : parts) EXPECT_THAT(rules.status().message(), HasSubstr(part)) << text;
  }
}

TEST(TuningRules, ATableThatWasWrittenIsReadBack) {
  const Algorithm* ring = FindAlgorithm(Operation::kAllReduce, "ring");
  const Algorithm* direct = FindAlgorithm(Operation::kAllReduce, "direct");
  const TuningRules rules = RulesOf(Operation::kAllReduce, 2, 8,
                                    std::vector<MeasuredTime>{{1 << 10, ring, 9e-6},
                                                              {1 << 10, direct, 5e-6},
                                                              {4 << 10, ring, 7.9e-6},
                                                              {4 << 10, direct, 8e-6},  // no more than noise
                                                              {16 << 10, ring, 10e-6},
                                                              {16 << 10, direct, 30e-6}});
  ASSERT_EQ(rules.size(), 2u);
  EXPECT_EQ(rules[0].algorithm, direct);
  EXPECT_EQ(rules[0].bytes, (TuningRange{0, 8 << 10}));
  EXPECT_EQ(rules[1].algorithm, ring);
  EXPECT_EQ(rules[1].bytes, (TuningRange{8 << 10, TuningRange::kNoEnd}));
  TuningRules with_piece = rules;
  with_piece[1].piece_bytes = 4096;
  const auto back = ParseTuningTable(FormatTuningTable(with_piece), "table");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, with_piece);
  EXPECT_EQ(MergeTuningTables(with_piece, rules), rules);
  EXPECT_EQ(ParseTuningTable(FormatTuningTable(BuiltInRules()), "built-in").value(), BuiltInRules());
}

TEST(TuningRules, BrokenTablesNameTheLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "t: empty"},
      {"all-reduce * * * ring\n", "t:1: the first line must be"},
      {"cohort-tuning-table 2\n", "t:1: "},
      {"cohort-tuning-table 1\n\nall-reduce * * ring\n", "t:3: a rule is"},
      {"cohort-tuning-table 1\nall-reduce * * * rings # x\n", "t:2: all-reduce has no algorithm 'rings'"},
      {"cohort-tuning-table 1\nall-reduce x * * ring\n", "t:2: 'x' is no number"},
      {"cohort-tuning-table 1\nall-reduce * * 4k ring\n", "t:2: '4k' is no range"},
  };
  for (const auto& [text, what] : cases) {
    const auto rules = ParseTuningTable(text, "t");
    ASSERT_FALSE(rules.ok()) << text;
    EXPECT_THAT(rules.status().message(), HasSubstr(what));
  }
}

TEST(Tuner, SizeClassesAreFourAnOctaveAndBeginWhereTheySay) {
  uint32_t last = 0;
  for (size_t bytes = 0; bytes < 70'000; ++bytes) {
    const uint32_t size_class = Tuner::SizeClass(bytes);
    ASSERT_TRUE(size_class == last || size_class == last + 1) << bytes;
    ASSERT_LE(Tuner::SmallestOf(size_class), bytes);
    ASSERT_GT(Tuner::SmallestOf(size_class + 1), bytes);
    last = size_class;
  }
  EXPECT_EQ(Tuner::SmallestOf(Tuner::SizeClass(size_t{1} << 40)), size_t{1} << 40);
}

TEST(Tuner, ChoosesOneOfTheCheapest) {
  const auto tuning = std::make_shared<const Tuning>(SlowLinks());
  Tuner tuner(tuning, Hosts(3, 2));
  for (const Algorithm& algorithm : Algorithms()) {
    for (const size_t bytes : {size_t{8}, size_t{1000}, size_t{128} << 10, size_t{5} << 20}) {
      const Choice choice = tuner.Choose(algorithm.operation, bytes);
      const auto all = tuner.PriceAll(algorithm.operation, bytes);
      const auto best = std::min_element(all.begin(), all.end(),
                                         [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
      const auto chosen =
          std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.choice == choice; });
      ASSERT_NE(chosen, all.end());
      EXPECT_LE(chosen->seconds, (1 + policy::kAlike) * best->seconds)
          << Name(algorithm.operation) << " of " << bytes;
      EXPECT_LE(chosen->remote_messages, best->remote_messages)
          << Name(algorithm.operation) << " of " << bytes;
    }
  }
}

// Of four hosts that share two processors, where messages are dear: they count less the more bytes there are.
TEST(Tuner, WhereBytesTakeTheTimeFewerMessagesCountLess) {
  Tuning dear = SlowLinks();
  for (const int level : {3, 4}) dear.prices.gap[level] = 90e-6;
  Tuning without_bytes = dear;
  without_bytes.prices.local_seconds_per_byte = 0;
  for (LinkPrice& price : without_bytes.prices.price) price.seconds_per_byte = 0;
  Tuner tuner(std::make_shared<const Tuning>(dear), Hosts(4, 2));
  const Tuner of_messages(std::make_shared<const Tuning>(without_bytes), Hosts(4, 2));
  for (size_t bytes = 8; bytes <= 4 << 20; bytes *= 2) {
    const Choice choice = tuner.Choose(Operation::kAllReduce, bytes);
    const auto all = tuner.PriceAll(Operation::kAllReduce, bytes);
    const auto fixed = of_messages.PriceAll(Operation::kAllReduce, bytes);
    const auto best = std::min_element(all.begin(), all.end(),
                                       [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
    const auto seconds = [](const std::vector<PricedChoice>& priced, const Choice& wanted) {
      return std::find_if(priced.begin(), priced.end(), [&](const auto& one) { return one.choice == wanted; })
          ->seconds;
    };
    const double messages = seconds(fixed, best->choice);
    EXPECT_LE(seconds(all, choice),
              best->seconds * (1 + 1e-12) + policy::kAlike * messages * messages / best->seconds)
        << bytes;
  }
  EXPECT_DOUBLE_EQ(Alike(8, 8), 8 * policy::kAlike);
  EXPECT_DOUBLE_EQ(Alike(8, 2), policy::kAlike / 2);
  EXPECT_EQ(Alike(8, 0), 0);
}

TEST(Tuner, OfWhatCostsAboutTheSameTheFewestMessagesArePreferred) {
  const auto name = [](const std::vector<PricedChoice>& all) {
    return std::string(Preferred(all, 0.25).algorithm->name);
  };
  const PricedChoice ring = {{FindAlgorithm(Operation::kAllReduce, "ring"), 0}, 1.0, 12, 24};
  const PricedChoice tree = {{FindAlgorithm(Operation::kAllReduce, "double_tree"), 0}, 1.2, 12, 20};
  const PricedChoice hosts = {{FindAlgorithm(Operation::kAllReduce, "hierarchical"), 0}, 1.25, 8, 40};
  const PricedChoice slow = {{FindAlgorithm(Operation::kAllReduce, "nvrar"), 0}, 1.26, 1, 1};
  EXPECT_EQ(name({slow, ring}), "ring");
  EXPECT_EQ(name({ring, tree}), "double_tree") << "fewer messages";
  EXPECT_EQ(name({ring, tree, hosts, slow}), "hierarchical") << "fewer between hosts count more";
  const PricedChoice direct = {{FindAlgorithm(Operation::kAllReduce, "direct"), 0}, 0.99, 12, 24};
  EXPECT_EQ(name({ring, direct}), "ring") << "of what costs the same, the first";
  const PricedChoice dear = {{FindAlgorithm(Operation::kAllReduce, "all_pair"), 0}, 1.2, 12, 24};
  EXPECT_EQ(name({dear, ring}), "ring") << "the cheaper";
}

TEST(Tuner, OverSlowLinksFewestBytesCross) {
  for (const int hosts : {2, 4}) {
    for (size_t bytes = 128 << 10; bytes <= 16 << 20; bytes *= 2) {
      const std::string name = Chosen(SlowLinks(), Hosts(hosts, 2), Operation::kAllReduce, bytes);
      EXPECT_TRUE(absl::StartsWith(name, "hierarchical") || name == "ho_ring" || name == "nvrar")
          << name << " " << bytes;
      EXPECT_TRUE(hosts == 2 || name != "nvrar") << bytes;  // crosses log2 hosts times
    }
  }
  for (const size_t bytes : {64, 512, 4096}) {
    // One message for a pair of hosts.
    const std::string name = Chosen(SlowLinks(), Hosts(2, 4), Operation::kAllToAll, bytes);
    EXPECT_TRUE(name == "hierarchical" || name == "leaders") << name << " " << bytes;
  }
}

TEST(Tuner, OverridesCountMoreThanTablesAndTheseMoreThanPrices) {
  Tuning tuning = With("all-reduce:1k-64k=ring");
  tuning.table =
      ParseTuningTable("cohort-tuning-table 1\nall-reduce 2 4 0-1m double_tree/32k\n", "t").value();
  EXPECT_EQ(Chosen(tuning, Hosts(2, 2), Operation::kAllReduce, 1024), "ring");
  EXPECT_EQ(Chosen(tuning, Hosts(2, 2), Operation::kAllReduce, 1023), "double_tree");
  EXPECT_EQ(Chosen(tuning, Hosts(2, 2), Operation::kAllReduce, 64 << 10), "double_tree");
  EXPECT_NE(Chosen(tuning, Hosts(2, 2), Operation::kAllReduce, 1 << 20), "double_tree");
  EXPECT_NE(Chosen(tuning, Hosts(2, 3), Operation::kAllReduce, 8), "double_tree");  // other ranks
  Tuner tuner(std::make_shared<const Tuning>(tuning), Hosts(2, 2));
  EXPECT_EQ(tuner.Choose(Operation::kAllReduce, 8).piece_bytes, 32u << 10);
}

TEST(Tuner, OneHostHasTheMeasuredRules) {
  EXPECT_EQ(Chosen({}, Hosts(1, 2), Operation::kAllReduce, 8), "recursive_doubling");
  EXPECT_EQ(Chosen({}, Hosts(1, 4), Operation::kAllReduce, 1 << 20), "direct");
  EXPECT_EQ(Chosen({}, Hosts(1, 32), Operation::kAllReduce, 1 << 20), "ring");
  EXPECT_EQ(Chosen({}, Hosts(1, 4), Operation::kAllGather, 1 << 20), "pairwise");
  for (const Algorithm& algorithm : Algorithms()) {
    for (const int ranks : {1, 2, 16, 17, 200}) {
      for (const size_t bytes : {size_t{0}, size_t{40} << 10, size_t{1} << 30}) {
        EXPECT_NE(Chosen({}, Hosts(1, ranks), algorithm.operation, bytes), "");
      }
    }
  }
}

TEST(Tuner, AllToAllVDoesNotDependOnOnesOwnCounts) {
  Tuner tuner(std::make_shared<const Tuning>(With("all-to-all-v:0-1k=hierarchical")), Hosts(2, 2));
  Collective collective;
  collective.operation = Operation::kAllToAllV;
  collective.size = 4;
  collective.counts = {1, 1, 1, 1};
  EXPECT_STREQ(tuner.Select(collective, 4).name, "pairwise");
  collective.matrix = std::make_shared<const std::vector<size_t>>(16, 1);
  EXPECT_STREQ(tuner.Select(collective, 4).name, "hierarchical");
}

TEST(Tuner, RanksTellEachOtherTheirCountsWhereThatPays) {
  const auto exchanges = [](Tuning tuning, std::shared_ptr<const HostMap> hosts) {
    return Tuner(std::make_shared<const Tuning>(std::move(tuning)), std::move(hosts)).ExchangesCounts();
  };
  Tuning busy = SlowLinks();  // as measured where ranks outnumber cores
  for (const int level : {3, 4}) {
    busy.prices.price[level].latency = 26e-6;
    busy.prices.gap[level] = 14e-6;
  }
  EXPECT_TRUE(exchanges(busy, Hosts(4, 8)));
  EXPECT_TRUE(exchanges(busy, Hosts(2, 4)));  // counts go through leaders: one message for a pair of hosts
  EXPECT_FALSE(exchanges(SlowLinks(), Hosts(1, 8)));
  EXPECT_FALSE(exchanges(SlowLinks(), Hosts(4, 1)));    // nothing to gather
  EXPECT_FALSE(exchanges(SlowLinks(), Hosts(128, 8)));  // too many counts
  Tuning told = SlowLinks();
  told.overrides = *ParseOverrides("all-to-all-v=pairwise");
  EXPECT_FALSE(exchanges(told, Hosts(4, 8)));
  told.overrides = *ParseOverrides("all-to-all-v:0-1k=hierarchical,1k-inf=pairwise");
  EXPECT_TRUE(exchanges(told, Hosts(2, 2)));
  EXPECT_FALSE(exchanges(told, Hosts(1, 2)));
}

TEST(Agreement, NamesThoseWhoDifferFromMost) {
  using D = TuningInputs::Digests;
  EXPECT_TRUE(CompareDigests(std::vector<D>{D{1, 2, 3}, D{1, 2, 3}}).ok());
  EXPECT_THAT(CompareDigests(std::vector<D>{D{7, 2, 3}, D{1, 2, 3}, D{1, 2, 3}, D{8, 2, 3}}).message(),
              AllOf(HasSubstr("ranks 0, 3 have other collectives"), HasSubstr("than rank 1")));
  EXPECT_THAT(CompareDigests(std::vector<D>{D{1, 2, 3}, D{1, 9, 3}}).message(),
              HasSubstr("rank 1 has other tuning table"));
}

TEST(Agreement, RanksOfDifferentOverridesGetTheSameErrorAtCreation) {
  RunProcesses(3, [](int rank, int size, const std::string& folder) {
    if (rank == 1) setenv("COHORT_COLLECTIVES", "all-reduce=ring", 1);
    const auto comm =
        Communicator::Create(FileRendezvous(folder + "/meet", rank, size),
                             {.timeout = absl::Seconds(20), .collectives = "all-reduce=direct"});
    EXPECT_EQ(comm.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(comm.status().message(), HasSubstr("rank 1 has other collectives"));
  });
}

TEST(Agreement, AnUnknownAlgorithmOfOneRankEndsAllAtOnce) {
  RunProcesses(3, [](int rank, int size, const std::string& folder) {
    if (rank == 2) setenv("COHORT_COLLECTIVES", "all-reduce=rink", 1);
    const auto comm =
        Communicator::Create(FileRendezvous(folder + "/meet", rank, size), {.timeout = absl::Seconds(20)});
    ASSERT_FALSE(comm.ok());
    EXPECT_THAT(comm.status().message(), HasSubstr("'rink'"));
    EXPECT_THAT(comm.status().message(), HasSubstr(rank == 2 ? "character 12" : "rank 2 cannot start"));
  });
}

TEST(Agreement, TheOptionsAndATableAreUsed) {
  RunProcesses(2, [](int rank, int size, const std::string& folder) {
    const std::string path = folder + "/table" + std::to_string(rank);
    std::ofstream(path) << "cohort-tuning-table 1\nbroadcast * 2 * chain\n";
    const auto comm = Communicator::Create(
        FileRendezvous(folder + "/meet", rank, size),
        {.timeout = absl::Seconds(20), .collectives = "all-reduce=all_pair", .tuning_table = path});
    ASSERT_TRUE(comm.ok()) << comm.status();
    EXPECT_EQ((*comm)->AlgorithmOf(Operation::kAllReduce, 8), "all_pair");
    EXPECT_EQ((*comm)->AlgorithmOf(Operation::kBroadcast, 8), "chain");
    int sum = rank + 1;
    ASSERT_EQ((*comm)->AllReduce(&sum, &sum, 1, DataType::kI32).Wait(), absl::OkStatus());
    EXPECT_EQ(sum, 3);
    // A group inherits; it can be given others, and only the same.
    const auto group = (*comm)->Split(0, rank);
    ASSERT_TRUE(group.ok());
    EXPECT_EQ((*group)->AlgorithmOf(Operation::kBroadcast, 8), "chain");
    EXPECT_THAT((*group)->SetCollectives(rank == 0 ? "all-reduce=ring" : "all-reduce=direct").message(),
                HasSubstr("rank 1 has other collectives"));
    EXPECT_FALSE((*group)->SetCollectives(rank == 0 ? "all-reduce=ring" : "all-reduce=rink").ok());
    EXPECT_EQ((*group)->AlgorithmOf(Operation::kAllReduce, 8), "all_pair");
    EXPECT_EQ((*group)->SetCollectives("all-reduce=ring"), absl::OkStatus());
    EXPECT_EQ((*group)->AlgorithmOf(Operation::kAllReduce, 8), "ring");
    sum = rank + 1;
    ASSERT_EQ((*group)->AllReduce(&sum, &sum, 1, DataType::kI32).Wait(), absl::OkStatus());
    EXPECT_EQ(sum, 3);
  });
}

TEST(Agreement, SeveralHostsMeasureAndChooseAlike) {
  RunProcesses(4, [](int rank, int size, const std::string& folder) {
    setenv("COHORT_HOST_ID", rank < 2 ? "here" : "there", 1);
    setenv("COHORT_TOPOLOGY", "measure", 1);
    const absl::Time begin = absl::Now();
    const auto comm =
        Communicator::Create(FileRendezvous(folder + "/meet", rank, size), {.timeout = absl::Seconds(20)});
    ASSERT_TRUE(comm.ok()) << comm.status();
    EXPECT_LT(absl::Now() - begin, absl::Seconds(15));
    for (const Algorithm& algorithm : Algorithms()) {
      for (size_t bytes = 8; bytes <= 1 << 20; bytes *= 16) {
        const std::string own = (*comm)->AlgorithmOf(algorithm.operation, bytes);
        const int64_t number = FindAlgorithm(algorithm.operation, own) - Algorithms().data();
        int64_t least = number, most = number;
        ASSERT_TRUE((*comm)->AllReduce(&least, &least, 1, DataType::kI64, ReduceOp::kMin).Wait().ok());
        ASSERT_TRUE((*comm)->AllReduce(&most, &most, 1, DataType::kI64, ReduceOp::kMax).Wait().ok());
        ASSERT_EQ(least, most) << Name(algorithm.operation) << " of " << bytes;
      }
    }
  });
}

TEST(Agreement, EveryDistanceIsMeasured) {
  // Two sockets of two NUMA domains each; a host of one rank.
  std::vector<HostMap::Place> places = {{0, -1, -1}};
  for (int rank = 0; rank < 8; ++rank) places.push_back({1, rank / 4, rank / 2});
  const auto deep = std::make_shared<const HostMap>(places);
  for (const auto& hosts : {Hosts(2, 1), Hosts(5, 3), Hosts(40, 2), Hosts(1, 2), Hosts(2, 2), deep}) {
    std::map<Distance, int> number;
    std::set<int> measuring_hosts;
    for (const MeasuredTeam& team : TeamsToMeasure(*hosts)) {
      ASSERT_GT(team.ranks.size(), 1);
      EXPECT_LE(team.ranks.size(), policy::kMeasuredTeam + 1);
      for (const int one : team.ranks) {
        for (const int other : team.ranks) {
          EXPECT_TRUE(one == other || team.distance == hosts->Between(one, other));
        }
        const bool first_of_host =
            team.distance < Distance::kRack || measuring_hosts.insert(hosts->host_of(one)).second;
        EXPECT_TRUE(first_of_host);
      }
      ++number[team.distance];
    }
    EXPECT_EQ(measuring_hosts.size(),
              hosts->num_hosts() == 1 ? 0 : std::min(hosts->num_hosts(), policy::kMeasuredHosts));
    for (int rank = 1; rank < hosts->size(); ++rank) EXPECT_GT(number[hosts->Between(0, rank)], 0);
    EXPECT_EQ(number[Distance::kNuma], hosts == deep);
    EXPECT_EQ(number[Distance::kSocket], hosts == deep);
  }
}

}  // namespace
}  // namespace cohort::comm
