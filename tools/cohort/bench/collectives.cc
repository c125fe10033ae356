// cohort bench collectives: Cohort's collectives beside those of its peers, in one run. The contestants take
// turns, so that whatever slows the machine slows all of them. A turn is as in the OSU benchmarks and
// nccl-tests: a barrier, a run to warm up, then runs back to back; its time is that of the slowest rank over
// the number of runs. The median over the turns counts.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/algorithms/algorithm.h"
#include "comm/check.h"
#include "comm/tuner/rules.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/collective_calls.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/bench/peers.h"
#include "tools/cohort/bench/wire.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using comm::Communicator;
using comm::ReduceOp;

constexpr absl::string_view kCohort = "cohort";  // what the peer that is no peer is called
constexpr int kTurns = 11;                       // where the time allows
constexpr int kLeastTurns = 3;                   // and where it does not
constexpr int kMostRuns = 20'000;
constexpr int kRunsWorthWarmingUp = 4;
constexpr double kShort = 1e-3;                         // seconds
constexpr absl::Duration kPatience = absl::Minutes(5);  // a peer may take that long where Cohort does not

struct CollectivesFlags {
  std::vector<std::string> operations;
  size_t min_bytes = 8;
  size_t max_bytes = 64 << 20;
  size_t factor = 4;
  std::vector<size_t> bytes;  // instead of the three
  double seconds = 1;
  std::vector<std::string> who;
  std::vector<std::string> algorithms = {kChosen};
  std::vector<std::string> codecs;
  std::string mpi_name;
  std::string json;
  std::string tune;
};

struct Contestant {
  Peer* peer = nullptr;
  std::string algorithm;
  RunOnce run = nullptr;
  int runs = 1;  // in a turn
  int total_runs = 0;
  std::vector<double> seconds = {};  // of a run, one a turn; this rank's, and in the end the slowest's
  bool wrong = false;                // its result: it does not count
  double wire_bytes = 0;             // all that this host sent meanwhile; in the end all hosts', of a run
};

double Seconds(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

absl::Status Agree(Communicator& world, std::vector<double>& values, ReduceOp op) {
  return world.AllReduce(values.data(), values.data(), values.size(), DataType::kF64, op).Wait();
}

// One turn of `runs` runs; gives the seconds of a run on this rank.
absl::StatusOr<double> Turn(Communicator& world, Contestant& contestant, int runs) {
  const bool counts = world.topology().local_rank() == 0 && world.topology().num_hosts() > 1;
  // Before the barrier: another rank of this host may be through it, and send, earlier than this one.
  const int64_t before = counts ? BytesSentByHost() : 0;
  COHORT_RETURN_IF_ERROR(world.Barrier().Wait());
  double seconds = 0;
  const bool warm_up = runs >= kRunsWorthWarmingUp;
  {
    const auto exclusive = contestant.peer->Exclusive();
    if (warm_up) COHORT_RETURN_IF_ERROR(contestant.run());
    const auto begin = std::chrono::steady_clock::now();
    for (int run = 0; run < runs; ++run) COHORT_RETURN_IF_ERROR(contestant.run());
    seconds = Seconds(begin) / runs;
  }
  COHORT_RETURN_IF_ERROR(world.Barrier().Wait());  // all of this host have sent what they had to
  if (counts) contestant.wire_bytes += static_cast<double>(BytesSentByHost() - before);
  contestant.total_runs += runs + (warm_up ? 1 : 0);
  return seconds;
}

// Every contestant once, checked; then how many runs a turn of each is worth. Gives the number of turns. A peer with a
// wrong result is left out; that Cohort has one is an error.
absl::StatusOr<int> Prepare(Communicator& world, BenchBuffers& buffers, std::vector<Contestant>& contestants,
                            double budget) {
  std::vector<double> estimates;
  for (Contestant& contestant : contestants) {
    const std::string what =
        absl::StrCat(contestant.peer->name(), "'s ", contestant.algorithm, " ", Describe(buffers.call()));
    buffers.Fill();
    COHORT_ASSIGN_OR_RETURN(contestant.run, contestant.peer->Prepare(buffers.call(), contestant.algorithm));
    COHORT_RETURN_IF_ERROR(Turn(world, contestant, 1).status());
    const double tolerance = contestant.peer->Tolerance(buffers.call(), contestant.algorithm);
    std::vector<double> wrong = {buffers.Correct(tolerance) ? 0.0 : 1.0};
    COHORT_RETURN_IF_ERROR(Agree(world, wrong, ReduceOp::kMax));
    if (wrong[0] > 0) {
      const std::string problem = absl::StrCat(what, " gives a wrong result");
      if (contestant.peer->name() == kCohort) return absl::InternalError(problem);
      if (world.rank() == 0) std::fprintf(stderr, "cohort: %s, and is left out\n", problem.c_str());
      contestant.wrong = true;
      continue;
    }
    // Short ones are timed together: one alone is over before the ranks are in step.
    std::vector<double> seconds(1);
    for (const int runs : {1, 16}) {
      COHORT_ASSIGN_OR_RETURN(seconds[0], Turn(world, contestant, runs));
      COHORT_RETURN_IF_ERROR(Agree(world, seconds, ReduceOp::kMax));
      if (seconds[0] > kShort) break;
    }
    estimates.push_back(seconds[0]);
  }
  std::erase_if(contestants, [](const Contestant& contestant) { return contestant.wrong; });
  if (contestants.empty()) return kLeastTurns;
  double round = 0;
  for (double estimate : estimates) round += estimate;
  const int turns = std::clamp(static_cast<int>(budget / round), kLeastTurns, kTurns);
  const double turn = budget / turns / static_cast<double>(contestants.size());
  for (size_t i = 0; i < contestants.size(); ++i) {
    contestants[i].runs = static_cast<int>(std::clamp(turn / estimates[i], 1.0, double{kMostRuns}));
    contestants[i].wire_bytes = contestants[i].total_runs = 0;
  }
  return turns;
}

absl::Status Measure(Communicator& world, std::vector<Contestant>& contestants, int turns) {
  // Whoever follows whom changes, as it finds what that leaves: caches, and which ranks share a processor. Three contestants
  // have all orders in six turns.
  const size_t number = contestants.size();
  for (size_t turn = 0; turn < static_cast<size_t>(turns); ++turn) {
    for (size_t i = 0; i < number; ++i) {
      const size_t place = turn % 2 == 0 ? i : number - 1 - i;
      Contestant& contestant = contestants[(place + turn / 2) % number];
      COHORT_ASSIGN_OR_RETURN(const double seconds, Turn(world, contestant, contestant.runs));
      contestant.seconds.push_back(seconds);
    }
  }
  for (Contestant& contestant : contestants) {
    COHORT_RETURN_IF_ERROR(Agree(world, contestant.seconds, ReduceOp::kMax));
    std::vector<double> wire = {contestant.wire_bytes / contestant.total_runs};
    COHORT_RETURN_IF_ERROR(Agree(world, wire, ReduceOp::kSum));
    contestant.wire_bytes = wire[0];
  }
  return absl::OkStatus();
}

// The table on the terminal: a line a size, a column a peer with the fastest of its algorithms.
void PrintLine(const std::set<std::string>& names, const std::vector<Contestant>& contestants, size_t bytes) {
  double cohort = 0, peers = INFINITY;
  std::string line = absl::StrFormat("%10d", bytes);
  for (const std::string& name : names) {
    const Contestant* best = nullptr;
    for (const Contestant& contestant : contestants) {
      if (contestant.peer->name() != name) continue;
      if (best == nullptr || Median(contestant.seconds) < Median(best->seconds)) best = &contestant;
    }
    if (best == nullptr) {
      absl::StrAppend(&line, absl::StrFormat("  %12s %-20s", "-", ""));
      continue;
    }
    const double seconds = Median(best->seconds);
    absl::StrAppend(&line, absl::StrFormat("  %12.2f %-20s", seconds * 1e6, best->algorithm));
    if (name == kCohort) {
      cohort = seconds;
    } else {
      peers = std::min(peers, seconds);
    }
  }
  if (cohort > 0 && std::isfinite(peers)) absl::StrAppend(&line, absl::StrFormat("  %6.2f", peers / cohort));
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void PrintHeader(const CollectiveOperation& operation, const Communicator& world,
                 const std::set<std::string>& names) {
  std::printf("\n%s, %d ranks, hosts: %d; microseconds; ratio: fastest peer / cohort\n%10s",
              Name(operation.operation), world.size(), world.topology().num_hosts(), "bytes");
  for (const std::string& name : names) std::printf("  %12s %-20s", name.c_str(), "");
  std::printf("   ratio\n");
}

std::vector<size_t> WantedSizes(const CollectivesFlags& flags) {
  if (!flags.bytes.empty()) return flags.bytes;
  std::vector<size_t> sizes;
  for (size_t bytes = flags.min_bytes; bytes < flags.max_bytes; bytes *= flags.factor) sizes.push_back(bytes);
  sizes.push_back(flags.max_bytes);
  return sizes;
}

// Rules of sizes are for calls whose size is equal on all ranks; a round trip has no algorithms.
bool Tunable(comm::Operation operation) {
  return operation != comm::Operation::kAllToAllV && operation != comm::Operation::kPointToPoint;
}

// Instead of what the file, where there is one, says of the same operations and groups.
absl::Status WriteTuningTable(const comm::TuningRules& rules, const std::string& path) {
  comm::TuningRules table;
  if (std::ifstream before(path); before) {
    std::ostringstream text;
    text << before.rdbuf();
    COHORT_ASSIGN_OR_RETURN(table, comm::ParseTuningTable(text.str(), path));
  }
  std::ofstream file(path);
  file << comm::FormatTuningTable(comm::MergeTuningTables(std::move(table), rules));
  file.close();
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot write the tuning table ", path));
  return absl::OkStatus();
}

bool Wanted(const CollectivesFlags& flags, const std::string& who) {
  return flags.who.empty() || std::find(flags.who.begin(), flags.who.end(), who) != flags.who.end();
}

absl::Status BenchCollectives(const CollectivesFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(const auto operations, ChosenOperations(flags.operations));
  COHORT_RETURN_IF_ERROR(StartMpiForBench());
  // Ranks may outnumber cores and peers spin: who does not answer for a while is not lost.
  setenv("COHORT_PEER_SILENCE_MS", "60000", /*overwrite=*/0);
  COHORT_ASSIGN_OR_RETURN(const auto world, JoinWorld(kPatience));
  if (world->size() < 2)
    return absl::InvalidArgumentError("one rank has nobody to talk to: mpirun -np 2 ...");

  // Every peer is a row here. A flag leaves some out.
  std::vector<std::unique_ptr<Peer>> peers;
  const bool tunes = !flags.tune.empty();
  COHORT_ASSIGN_OR_RETURN(peers.emplace_back(),
                          MakeCohortPeer(*world, {tunes, flags.algorithms, flags.codecs}));
  if (!tunes) {
    COHORT_ASSIGN_OR_RETURN(peers.emplace_back(), MakeMpiPeer(*world, flags.mpi_name));
    // The one that connects on its own: not where it is not wanted.
    if (Wanted(flags, "gloo")) {
      COHORT_ASSIGN_OR_RETURN(peers.emplace_back(), MakeGlooPeer(*world));
    }
  }
  std::erase_if(peers, [&](const std::unique_ptr<Peer>& peer) {
    return peer == nullptr || !Wanted(flags, peer->name());
  });
  if (peers.empty()) return absl::InvalidArgumentError("--who names nobody whom this build has");

  std::set<std::string> names;
  for (const auto& peer : peers) names.insert(peer->name());
  const std::vector<size_t> sizes = WantedSizes(flags);
  const int hosts = world->topology().num_hosts();
  std::vector<nlohmann::ordered_json> rows;
  comm::TuningRules rules;
  for (const CollectiveOperation* operation : operations) {
    if (tunes && !Tunable(operation->operation)) continue;
    std::vector<comm::MeasuredTime> times;
    if (world->rank() == 0) PrintHeader(*operation, *world, names);
    for (size_t bytes : operation->Sizes(sizes, world->size())) {
      BenchBuffers buffers(*operation, *world, bytes);
      std::vector<Contestant> contestants;
      for (const auto& peer : peers) {
        for (const std::string& algorithm : peer->Algorithms(buffers.call())) {
          contestants.push_back({.peer = peer.get(), .algorithm = algorithm});
        }
      }
      COHORT_ASSIGN_OR_RETURN(const int turns, Prepare(*world, buffers, contestants, flags.seconds));
      COHORT_RETURN_IF_ERROR(Measure(*world, contestants, turns));
      if (world->rank() != 0) continue;
      PrintLine(names, contestants, bytes);
      for (const Contestant& contestant : contestants) {
        times.push_back({bytes, comm::FindAlgorithm(operation->operation, contestant.algorithm),
                         Median(contestant.seconds)});
        rows.push_back({{"op", Name(operation->operation)},
                        {"hosts", hosts},
                        {"ranks", world->size()},
                        {"bytes", bytes},
                        {"who", contestant.peer->name()},
                        {"algorithm", contestant.algorithm},
                        {"chosen", contestant.peer->Chosen(buffers.call(), contestant.algorithm)},
                        {"median_s", Median(contestant.seconds)},
                        {"wire_bytes", hosts > 1 ? nlohmann::ordered_json(std::llround(contestant.wire_bytes))
                                                 : nlohmann::ordered_json(nullptr)}});
      }
    }
    if (!tunes) continue;
    const auto own = comm::RulesOf(operation->operation, hosts, world->size(), times);
    rules.insert(rules.end(), own.begin(), own.end());
  }
  if (world->rank() != 0) return absl::OkStatus();
  if (tunes) COHORT_RETURN_IF_ERROR(WriteTuningTable(rules, flags.tune));
  return WriteRows(rows, flags.json);
}

}  // namespace

void AddBenchCollectives(CLI::App& bench, const Selected& selected) {
  CLI::App* app = bench.add_subcommand(
      "collectives", "Cohort's collectives beside this job's MPI and Gloo; run it under mpirun");
  const auto flags = std::make_shared<CollectivesFlags>();
  app->add_option("--ops", flags->operations,
                  absl::StrCat("Of ", OperationNames(), "; all where none is named"))
      ->delimiter(',');
  app->add_option("--min-bytes", flags->min_bytes,
                  "The first size: bytes of the larger of a rank's two buffers")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--max-bytes", flags->max_bytes, "The last size")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->check(CLI::Range(size_t{4}, size_t{1} << 32))
      ->capture_default_str();
  app->add_option("--factor", flags->factor, "From one size to the next")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app->add_option("--bytes", flags->bytes, "Just these sizes")
      ->delimiter(',')
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->check(CLI::PositiveNumber);
  app->add_option("--seconds", flags->seconds,
                  "Time for an operation and size, if three turns of each fit in it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--who", flags->who, "Only these, e.g. cohort,openmpi")->delimiter(',');
  app->add_option(
         "--algorithms", flags->algorithms,
         "Of Cohort, each measured on its own, where an operation has it; 'chosen' is what the tuner takes")
      ->delimiter(',')
      ->capture_default_str();
  app->add_option("--codec", flags->codecs,
                  "Of Cohort, also with these on the wire, e.g. int8, where an operation can have one")
      ->delimiter(',');
  app->add_option(
      "--mpi-name", flags->mpi_name,
      "What the rows call this job's MPI, e.g. openmpi-han where OMPI_MCA_coll_han_priority=100 is set");
  app->add_option(
      "--tune", flags->tune,
      "Measure every algorithm of Cohort instead, and write into this file which is fastest: what "
      "COHORT_TUNING_TABLE reads. What it says of other groups stays");
  app->add_option("--json", flags->json, "Write one JSON object a row to this file");
  app->callback([=] { selected([=] { return BenchCollectives(*flags); }); });
}

}  // namespace cohort::tools
