// cohort bench snapshot: what it costs to keep a rank's state in memory that outlives it, beside memcpy, and to protect it
// by parity over hosts, beside ISA-L alone.
#include <isa-l/erasure_code.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/elastic/parity/code.h"
#include "runtime/elastic/parity/exchange.h"
#include "runtime/elastic/parity/policy.h"
#include "runtime/elastic/snapshot/policy.h"
#include "runtime/elastic/snapshot/snapshotter.h"
#include "runtime/elastic/snapshot/sum.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/own_command.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

namespace elastic = runtime::elastic;
using nlohmann::ordered_json;

// Rounds in which slots get their memory, which count for nothing: one for each slot.
constexpr int kFirst = 2;

struct SnapshotFlags {
  int megabytes = 256, rounds = 9, data = 4, parity = 2;
  std::string json;
};

double Seconds(const std::function<void()>& what) {
  const auto begin = std::chrono::steady_clock::now();
  what();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Whatever is compared runs in turns, `rounds` times after one that does not count; median seconds of each.
struct Contestant {
  const char* name;
  std::function<void()> run;
  std::vector<double> seconds = {};
};
void Compare(std::vector<Contestant>& contestants, int rounds) {
  for (int round = 0; round <= rounds; ++round) {
    for (Contestant& contestant : contestants) {
      const double seconds = Seconds(contestant.run);
      if (round > 0) contestant.seconds.push_back(seconds);
    }
  }
}

ordered_json Report(const char* what, const std::vector<Contestant>& contestants, double bytes) {
  ordered_json rows = ordered_json::array();
  const double first = Median(contestants[0].seconds);
  for (const Contestant& contestant : contestants) {
    const double seconds = Median(contestant.seconds);
    std::printf("  %-44s %7.2f GB/s  %5.2f of the first\n", contestant.name, bytes / seconds / 1e9,
                first / seconds);
    rows.push_back({{"bench", what},
                    {"contestant", contestant.name},
                    {"bytes", bytes},
                    {"gb_per_s", bytes / seconds / 1e9},
                    {"of_first", first / seconds}});
  }
  return rows;
}

// One thread copies the state; all of it is larger than the caches.
void CopyInChunks(std::byte* to, const std::byte* from, size_t bytes,
                  const std::function<void(std::byte*, const std::byte*, size_t)>& copy) {
  constexpr size_t kChunk = elastic::snapshot_policy::kChunkBytes;
  for (size_t at = 0; at < bytes; at += kChunk) copy(to + at, from + at, std::min(kChunk, bytes - at));
}

absl::Status BenchCopies(const SnapshotFlags& flags, elastic::Keeper& keeper,
                         absl::Span<const std::byte> state, ordered_json& rows) {
  COHORT_ASSIGN_OR_RETURN(const elastic::Keeper::Created segment,
                          keeper.Create({"bench", 0, 0}, "bench", state.size()));
  std::byte* to = segment.memory.writable().data();
  const std::byte* from = state.data();
  const size_t bytes = state.size();
  uint64_t sum = 0;
  std::vector<Contestant> contestants = {
      {"memcpy", [&] { CopyInChunks(to, from, bytes, std::memcpy); }},
      {"copied and summed, around the caches",
       [&] {
         CopyInChunks(to, from, bytes, [&](std::byte* out, const std::byte* in, size_t count) {
           sum ^= elastic::CopyAndSum(out, in, count, true);
         });
       }},
      {"copied and summed, through the caches",
       [&] {
         CopyInChunks(to, from, bytes, [&](std::byte* out, const std::byte* in, size_t count) {
           sum ^= elastic::CopyAndSum(out, in, count, false);
         });
       }},
      {"summed alone",
       [&] {
         CopyInChunks(to, from, bytes, [&](std::byte*, const std::byte* in, size_t count) {
           sum ^= elastic::SumOf(in, count);
         });
       }},
  };
  Compare(contestants, flags.rounds);
  std::printf("one thread, %zu MB%s\n", bytes >> 20, sum == 1 ? " " : "");
  for (auto& row : Report("snapshot-copy", contestants, static_cast<double>(bytes))) rows.push_back(row);
  return keeper.Drop(segment.handle);
}

absl::Status BenchSnapshots(const SnapshotFlags& flags, elastic::Keeper& keeper,
                            absl::Span<const std::byte> state, ordered_json& rows) {
  COHORT_ASSIGN_OR_RETURN(
      const auto snapshotter,
      elastic::Snapshotter::Create(keeper, {"bench", 0, 0}, {{"state", state.data(), state.size()}}));
  std::vector<double> whole, behind;
  elastic::SnapshotCosts before, after;
  int64_t step = 0;
  const auto take = [&](absl::Duration pause, std::vector<double>& seconds) -> absl::Status {
    const auto begin = std::chrono::steady_clock::now();
    COHORT_RETURN_IF_ERROR(snapshotter->Begin(++step));
    absl::SleepFor(pause);
    COHORT_RETURN_IF_ERROR(snapshotter->Finish(absl::InfiniteFuture()));
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    snapshotter->Complete(step);
    return absl::OkStatus();
  };
  std::vector<double> first;
  for (int i = 0; i < kFirst; ++i) COHORT_RETURN_IF_ERROR(take(absl::ZeroDuration(), first));
  for (int round = 0; round < flags.rounds; ++round) {
    COHORT_RETURN_IF_ERROR(take(absl::ZeroDuration(), whole));
    // The training computes meanwhile, for longer than the copy takes.
    const absl::Duration pause = absl::Seconds(3 * Median(whole));
    if (round == 0) before = snapshotter->costs();
    COHORT_RETURN_IF_ERROR(take(pause, behind));
  }
  after = snapshotter->costs();
  const double snapshots = static_cast<double>(after.snapshots - before.snapshots);
  const double cpu =
      (after.background_cpu + after.caller_cpu - before.background_cpu - before.caller_cpu) / snapshots;
  const double gigabytes = static_cast<double>(state.size()) / 1e9;
  std::printf(
      "snapshots, %zu MB: the first into a slot %.2f GB/s, then %.2f GB/s where Finish follows at once; %.4f "
      "processor seconds each, %.4f a GB\n",
      state.size() >> 20, gigabytes / Median(first), gigabytes / Median(whole), cpu, cpu / gigabytes);
  rows.push_back({{"bench", "snapshot"},
                  {"bytes", state.size()},
                  {"first_gb_per_s", gigabytes / Median(first)},
                  {"gb_per_s", gigabytes / Median(whole)},
                  {"cpu_seconds", cpu},
                  {"cpu_seconds_per_gb", cpu / gigabytes}});
  return snapshotter->Drop();
}

// The code on pieces as they are encoded, `state` being k streams.
void BenchCode(const SnapshotFlags& flags, absl::Span<const std::byte> state, ordered_json& rows) {
  const size_t k = static_cast<size_t>(flags.data), m = static_cast<size_t>(flags.parity);
  const size_t piece = std::min<size_t>(elastic::parity_policy::kPieceBytes, state.size() / k);
  const size_t pieces = state.size() / k / piece;
  const elastic::ReedSolomon code(flags.data, flags.parity);
  std::vector<std::byte> parity(m * piece);
  std::vector<std::byte*> out;
  for (size_t j = 0; j < m; ++j) out.push_back(parity.data() + j * piece);
  std::vector<uint8_t> matrix((k + m) * k), tables(32 * k * m);
  gf_gen_cauchy1_matrix(matrix.data(), flags.data + flags.parity, flags.data);
  ec_init_tables(flags.data, flags.parity, matrix.data() + k * k, tables.data());
  const auto each = [&](const std::function<void(const std::vector<const std::byte*>&)>& encode) {
    std::vector<const std::byte*> data(k);
    for (size_t p = 0; p < pieces; ++p) {
      for (size_t i = 0; i < k; ++i) data[i] = state.data() + (i * pieces + p) * piece;
      encode(data);
    }
  };
  std::vector<Contestant> contestants = {
      {"ISA-L",
       [&] {
         each([&](const std::vector<const std::byte*>& data) {
           ec_encode_data(static_cast<int>(piece), flags.data, flags.parity, tables.data(),
                          reinterpret_cast<unsigned char**>(const_cast<std::byte**>(data.data())),
                          reinterpret_cast<unsigned char**>(out.data()));
         });
       }},
      {"encoded",
       [&] { each([&](const std::vector<const std::byte*>& data) { code.Encode(data, out, piece); }); }},
      {"solved for one block",
       [&] {
         std::vector<int> symbols;
         for (int i = 1; i <= flags.data; ++i) symbols.push_back(i);
         each([&](std::vector<const std::byte*> data) { (void)code.Solve(symbols, data, 0, out[0], piece); });
       }},
  };
  Compare(contestants, flags.rounds);
  std::printf("one thread, %d data and %d parity blocks, pieces of %zu KB; bytes of data\n", flags.data,
              flags.parity, piece >> 10);
  for (auto& row : Report("parity-code", contestants, static_cast<double>(pieces * piece * k)))
    rows.push_back(row);
}

absl::Status BenchParity(const SnapshotFlags& flags, comm::Communicator& world, elastic::Keeper& keeper,
                         absl::Span<const std::byte> state, ordered_json& rows) {
  COHORT_ASSIGN_OR_RETURN(const elastic::StripeRequest request,
                          elastic::GatherStripeRequest(world, state.size(), flags.data, flags.parity));
  COHORT_ASSIGN_OR_RETURN(const elastic::StripePlan plan, elastic::PlanStripes(request));
  COHORT_RETURN_IF_ERROR(elastic::CheckStripes(plan));
  COHORT_ASSIGN_OR_RETURN(
      const auto store, elastic::ParityStore::Create(keeper, {"bench", 0, world.rank()}, plan, world.rank()));
  std::vector<double> seconds;
  for (int round = 0; round < flags.rounds + kFirst; ++round) {
    COHORT_RETURN_IF_ERROR(world.Barrier().Wait());
    absl::Status status;
    const double took = Seconds([&] {
      status = store->Encode(world, {0, round}, state, absl::Now() + absl::Minutes(2));
      if (status.ok()) status = world.Barrier().Wait();
    });
    COHORT_RETURN_IF_ERROR(status);
    store->Complete({0, round});
    if (round >= kFirst) seconds.push_back(took);
  }
  if (world.rank() == 0) {
    const double bytes = static_cast<double>(state.size()) * world.size();
    std::printf(
        "parity over %d hosts, %d ranks of %zu MB: %.3f s, %.2f GB/s of all ranks' data; %zu stripes\n",
        world.topology().num_hosts(), world.size(), state.size() >> 20, Median(seconds),
        bytes / Median(seconds) / 1e9, plan.stripes.size());
    rows.push_back({{"bench", "parity"},
                    {"hosts", world.topology().num_hosts()},
                    {"ranks", world.size()},
                    {"bytes", bytes},
                    {"seconds", Median(seconds)},
                    {"gb_per_s", bytes / Median(seconds) / 1e9}});
  }
  return store->Drop();
}

absl::Status BenchSnapshot(const SnapshotFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(const auto world, JoinWorld(absl::Minutes(2)));
  // Every host has its own; ranks on hosts that are names on one machine, too.
  COHORT_ASSIGN_OR_RETURN(const auto keeper,
                          elastic::Keeper::Connect({.job = absl::StrCat("bench-", getppid()),
                                                    .command = {OwnCommand(), "keeper"}}));
  std::vector<std::byte> state(static_cast<size_t>(flags.megabytes) << 20);
  for (size_t i = 0; i < state.size(); ++i) state[i] = static_cast<std::byte>(i * 2654435761u >> 13);
  ordered_json rows = ordered_json::array();
  if (world->rank() == 0) {
    COHORT_RETURN_IF_ERROR(BenchCopies(flags, *keeper, state, rows));
    COHORT_RETURN_IF_ERROR(BenchSnapshots(flags, *keeper, state, rows));
    BenchCode(flags, state, rows);
  }
  COHORT_RETURN_IF_ERROR(world->Barrier().Wait());
  if (world->topology().num_hosts() >= flags.data + flags.parity) {
    COHORT_RETURN_IF_ERROR(BenchParity(flags, *world, *keeper, state, rows));
  }
  COHORT_RETURN_IF_ERROR(world->Barrier().Wait());
  // Several ranks of a host say so.
  if (const absl::Status ended = keeper->End(); !ended.ok() && !absl::IsUnavailable(ended)) return ended;
  return world->rank() == 0 ? WriteRows(rows, flags.json) : absl::OkStatus();
}

}  // namespace

void AddBenchSnapshot(CLI::App& bench, const Selected& selected) {
  CLI::App* app =
      bench.add_subcommand("snapshot",
                           "Snapshots into memory that outlives the rank beside memcpy, parity beside "
                           "ISA-L; over hosts where the job has enough");
  const auto flags = std::make_shared<SnapshotFlags>();
  app->add_option("--megabytes", flags->megabytes, "State of a rank")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_option("--rounds", flags->rounds, "Turns; the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--data", flags->data, "Data blocks of a stripe")
      ->check(CLI::Range(1, 128))
      ->capture_default_str();
  app->add_option("--parity", flags->parity, "Parity blocks of a stripe")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app->add_option("--json", flags->json, "File for the rows");
  app->callback([=] { selected([=] { return BenchSnapshot(*flags); }); });
}

}  // namespace cohort::tools
