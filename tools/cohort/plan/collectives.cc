// cohort plan collectives: what every algorithm of an operation would cost on a described cluster, which one is the
// fastest, and why.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "comm/pricing.h"
#include "runtime/file.h"
#include "tools/cohort/plan/collectives_figure.h"
#include "tools/cohort/plan/plan.h"
#include "tools/cohort/plan/topology.h"

namespace cohort::tools {
namespace {

using comm::Algorithm;
using comm::Machine;
using comm::Price;

constexpr size_t kElementBytes = 4;
// Sizes of the figure: powers of four, or fewer where a price takes long.
constexpr double kFirstBytes = 64, kLastBytes = 1 << 30;
constexpr int kManyRanks = 20'000;
constexpr size_t kMostThreads = 16;  // a price of 100,000 ranks takes some 50 MB

struct PlanFlags {
  std::string topology, operation, svg;
  size_t bytes = 0;
};

struct Priced {
  const Algorithm* algorithm;
  Price price;
  std::string why;
};

// The machine with latencies, or links inside or between hosts, for nothing.
Machine Without(Machine machine, bool latency, bool inside, bool between) {
  for (int i = 0; i < comm::kNumDistances; ++i) {
    if (latency) machine.price[i].latency = 0;
    if (latency) machine.gap[i] = 0;
    if (static_cast<comm::Distance>(i) < comm::Distance::kRack ? inside : between)
      machine.price[i].seconds_per_byte = 0;
  }
  if (inside) machine.local_seconds_per_byte = 0;
  return machine;
}

// What the time goes to: what would be left with all other things for nothing.
absl::StatusOr<std::string> Why(const Algorithm& algorithm, const Machine& machine, size_t count,
                                double seconds) {
  if (!(seconds > 0)) return std::string("nothing to do");
  COHORT_ASSIGN_OR_RETURN(const Price latency,
                          PriceOf(algorithm, Without(machine, false, true, true), count, kElementBytes));
  COHORT_ASSIGN_OR_RETURN(const Price between,
                          PriceOf(algorithm, Without(machine, true, true, false), count, kElementBytes));
  COHORT_ASSIGN_OR_RETURN(const Price inside,
                          PriceOf(algorithm, Without(machine, true, false, true), count, kElementBytes));
  const struct {
    const char* name;
    double seconds;
  } parts[] = {{"latency and gaps", latency.seconds},
               {"links between hosts", between.seconds},
               {"inside hosts", inside.seconds}};
  const auto most = std::max_element(std::begin(parts), std::end(parts),
                                     [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  return absl::StrFormat("%s, %.0f%%", most->name, 100 * std::min(1.0, most->seconds / seconds));
}

// Algorithms take turns on the processors: prices are pure.
absl::StatusOr<std::vector<Priced>> PriceAll(const std::vector<const Algorithm*>& algorithms,
                                             const Machine& machine, size_t count) {
  std::vector<Priced> rows;
  for (const Algorithm* algorithm : algorithms) rows.push_back({algorithm, {}, ""});
  std::vector<absl::Status> statuses(rows.size());
  const auto price = [&](size_t i) -> absl::Status {
    Priced& row = rows[i];
    COHORT_ASSIGN_OR_RETURN(row.price, PriceOf(*row.algorithm, machine, count, kElementBytes));
    COHORT_ASSIGN_OR_RETURN(row.why, Why(*row.algorithm, machine, count, row.price.seconds));
    return absl::OkStatus();
  };
  std::atomic<size_t> next = 0;
  std::vector<std::thread> threads(std::clamp<size_t>(std::thread::hardware_concurrency(), 1, kMostThreads));
  for (std::thread& thread : threads) {
    thread = std::thread([&] {
      for (size_t i = next++; i < rows.size(); i = next++) statuses[i] = price(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) COHORT_RETURN_IF_ERROR(status);
  return rows;
}

absl::StatusOr<std::vector<const Algorithm*>> AlgorithmsOf(const std::string& operation) {
  std::vector<const Algorithm*> found;
  std::vector<std::string> known;
  for (const Algorithm& algorithm : comm::Algorithms()) {
    const std::string name = comm::Name(algorithm.operation);
    if (name == operation) found.push_back(&algorithm);
    if (known.empty() || known.back() != name) known.push_back(name);
  }
  if (!found.empty()) return found;
  return absl::InvalidArgumentError(
      absl::StrCat("--op ", operation, ": no such operation; there are ", absl::StrJoin(known, ", ")));
}

absl::Status Draw(const PlanFlags& flags, const Machine& machine,
                  const std::vector<const Algorithm*>& algorithms) {
  std::vector<double> bytes;
  const double step = machine.hosts->size() > kManyRanks ? 16 : 4;
  bytes.push_back(kFirstBytes);
  while (bytes.back() * step <= kLastBytes) bytes.push_back(bytes.back() * step);
  std::vector<Curve> curves;
  for (const Algorithm* algorithm : algorithms) {
    Curve& curve = curves.emplace_back(Curve{algorithm->name, {}});
    for (const double size : bytes) {
      COHORT_ASSIGN_OR_RETURN(
          const Price price,
          PriceOf(*algorithm, machine, static_cast<size_t>(size) / kElementBytes, kElementBytes));
      curve.seconds.push_back(price.seconds);
    }
  }
  const std::string title = absl::StrFormat("%s, %d ranks on %d hosts", flags.operation,
                                            machine.hosts->size(), machine.hosts->num_hosts());
  return runtime::WriteFileDurably(flags.svg,
                                   CrossoverFigure(title, bytes, curves, static_cast<double>(flags.bytes)));
}

absl::Status PlanCollectives(const PlanFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(const Machine machine, ReadMachine(flags.topology));
  COHORT_ASSIGN_OR_RETURN(const auto algorithms, AlgorithmsOf(flags.operation));
  const size_t count = (flags.bytes + kElementBytes - 1) / kElementBytes;
  COHORT_ASSIGN_OR_RETURN(std::vector<Priced> rows, PriceAll(algorithms, machine, count));
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Priced& a, const Priced& b) { return a.price.seconds < b.price.seconds; });
  std::printf("%s of %zu bytes, %d ranks on %d hosts\n", flags.operation.c_str(), count * kElementBytes,
              machine.hosts->size(), machine.hosts->num_hosts());
  std::printf("%-20s %12s %14s %16s  %s\n", "algorithm", "ms", "messages", "MB from a host",
              "most of the time");
  for (const Priced& row : rows) {
    std::printf("%-20s %12.4f %14.0f %16.6g  %s\n", row.algorithm->name, row.price.seconds * 1e3,
                row.price.messages, row.price.host_bytes / 1e6, row.why.c_str());
  }
  const Priced& best = rows.front();
  std::printf("fastest: %s (%s)", best.algorithm->name, best.algorithm->description);
  if (rows.size() > 1 && best.price.seconds > 0) {
    std::printf("; %s takes %.2f times as long", rows[1].algorithm->name,
                rows[1].price.seconds / best.price.seconds);
  }
  std::printf("\n");
  return flags.svg.empty() ? absl::OkStatus() : Draw(flags, machine, algorithms);
}

}  // namespace

void AddPlanCollectives(CLI::App& plan, const Selected& selected) {
  CLI::App* app = plan.add_subcommand(
      "collectives",
      "The price of every algorithm of an operation on a described cluster, up to 100,000 ranks");
  const auto flags = std::make_shared<PlanFlags>();
  app->add_option("--topology", flags->topology, "The cluster, a file as examples/clusters/racks.topology")
      ->required();
  app->add_option("--op", flags->operation, "The operation: all-reduce, all-gather, all-to-all, …")
      ->required();
  app->add_option(
         "--bytes", flags->bytes,
         "Bytes of the operation: of the buffer, or of all parts; all-to-all: what a rank sends in all")
      ->required()
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->check(CLI::Range(size_t{0}, size_t{1} << 50));
  app->add_option("--svg", flags->svg, "Also draw time over bytes, for every algorithm, into this file");
  app->callback([=] { selected([=] { return PlanCollectives(*flags); }); });
}

}  // namespace cohort::tools
