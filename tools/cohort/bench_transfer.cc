// cohort bench transfer: the transfer engine beside ucx_perftest, between the two ranks of a job, in one run.
// They take turns, so that whatever slows the machine slows both; the median over the turns counts. Latency
// is half the time of there and back: a write with an immediate, answered by one, beside ucp_put_lat and
// ucp_am_lat. Bandwidth is that of writes in flight together until all are over, beside ucp_put_bw and
// ucp_am_bw.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/rendezvous.h"
#include "comm/transfer/transfer_engine.h"
#include "tools/cohort/bench.h"
#include "tools/cohort/bench_model.h"
#include "tools/cohort/bench_perftest.h"

namespace cohort::tools {
namespace {

using comm::Work;
using comm::transfer::Options;
using comm::transfer::PeerId;
using comm::transfer::Region;
using comm::transfer::TransferEngine;

constexpr uint32_t kPing = 1;
constexpr size_t kInFlight = 16;  // writes
constexpr absl::Duration kPatience = absl::Minutes(2);

struct TransferFlags {
  std::vector<size_t> latency_bytes = {8, 1024, 8192};
  std::vector<size_t> bandwidth_bytes = {256 << 10, 4 << 20};
  int turns = 5;
  double seconds = 0.5;  // a turn
  bool network = false;
  std::vector<std::string> rails;
  std::string address;
  int port = 17'000;
  std::string json;
};

double Seconds(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

class TransferBench {
 public:
  explicit TransferBench(const TransferFlags& flags) : flags_(flags) {}

  absl::Status Connect() {
    if (!comm::LaunchedByMpi()) return absl::InvalidArgumentError("two ranks are needed: mpirun -np 2 ...");
    COHORT_ASSIGN_OR_RETURN(board_, comm::MpiRendezvous());
    if (board_->size() != 2) {
      return absl::InvalidArgumentError(
          absl::StrCat("there are ", board_->size(), " ranks; two are needed: mpirun -np 2 ..."));
    }
    const size_t bytes =
        std::max(*std::max_element(flags_.latency_bytes.begin(), flags_.latency_bytes.end()),
                 *std::max_element(flags_.bandwidth_bytes.begin(), flags_.bandwidth_bytes.end()));
    source_.resize(bytes, std::byte{1});
    target_.resize(bytes);
    Options options;
    options.name = absl::StrCat("rank ", rank());
    options.rails = flags_.rails;
    options.shared_memory = !flags_.network;
    options.timeout = kPatience;
    COHORT_ASSIGN_OR_RETURN(engine_, TransferEngine::Create(options));
    COHORT_ASSIGN_OR_RETURN(from_, engine_->Register(source_.data(), bytes));
    COHORT_ASSIGN_OR_RETURN(to_, engine_->Register(target_.data(), bytes));  // of the same number there
    char host[256] = {};
    gethostname(host, sizeof(host) - 1);
    COHORT_ASSIGN_OR_RETURN(const std::string card, Exchange("card", engine_->Card()));
    COHORT_ASSIGN_OR_RETURN(other_host_, Exchange("host", host));
    hosts_ = other_host_ == host ? 1 : 2;
    COHORT_ASSIGN_OR_RETURN(peer_, engine_->AddPeer(card));
    return Meet();
  }

  int rank() const { return board_->rank(); }
  int hosts() const { return hosts_; }

  // Half a round trip of so many bytes; `runs` of them.
  absl::StatusOr<double> Latency(size_t bytes, int runs) {
    COHORT_RETURN_IF_ERROR(Meet());
    std::deque<Work> works;
    std::vector<double> seconds;  // of each; ucx_perftest gives the median too
    for (int run = 0; run < runs; ++run) {
      const auto begin = std::chrono::steady_clock::now();
      for (const bool send : {rank() == 0, rank() != 0}) {
        if (send) {
          works.push_back(Write(bytes, kPing));
        } else {
          COHORT_RETURN_IF_ERROR(engine_->Expect({.immediate = kPing}).Wait());
        }
      }
      seconds.push_back(Seconds(begin) / 2);
      if (works.size() > kInFlight) {
        COHORT_RETURN_IF_ERROR(works.front().Wait());
        works.pop_front();
      }
    }
    for (const Work& work : works) COHORT_RETURN_IF_ERROR(work.Wait());
    return Median(seconds);
  }

  // Seconds a write, from rank 0 to rank 1.
  absl::StatusOr<double> Bandwidth(size_t bytes, int runs) {
    COHORT_RETURN_IF_ERROR(Meet());
    const auto begin = std::chrono::steady_clock::now();
    std::deque<Work> works;
    for (int run = 0; run < runs && rank() == 0; ++run) {
      works.push_back(Write(bytes, std::nullopt));
      if (works.size() < kInFlight) continue;
      COHORT_RETURN_IF_ERROR(works.front().Wait());
      works.pop_front();
    }
    for (const Work& work : works) COHORT_RETURN_IF_ERROR(work.Wait());
    const double seconds = Seconds(begin) / runs;
    COHORT_RETURN_IF_ERROR(Meet());
    return seconds;
  }

  // The same by ucx_perftest.
  absl::StatusOr<double> Perftest(const std::string& test, size_t bytes, int runs) {
    PerftestRun run{
        .test = test, .bytes = bytes, .iterations = runs, .network = flags_.network || hosts_ > 1};
    run.port = flags_.port + port_++ % 1000;
    // It cannot stripe: the first rail.
    if (!flags_.rails.empty()) run.device = flags_.rails[0];
    COHORT_RETURN_IF_ERROR(Meet());
    if (rank() == 0) {
      absl::SleepFor(absl::Milliseconds(500));  // until the server listens
      run.server = !flags_.address.empty() ? flags_.address : hosts_ == 1 ? "127.0.0.1" : other_host_;
    }
    const absl::StatusOr<PerftestResult> result = RunPerftest(run);
    COHORT_RETURN_IF_ERROR(Meet());
    if (rank() != 0) return 0.0;
    COHORT_RETURN_IF_ERROR(result.status());
    return absl::StrContains(test, "lat") ? result->latency_s
                                          : static_cast<double>(bytes) / result->bytes_per_second;
  }

  // Rank 0's value, on both.
  absl::StatusOr<int> Agree(int value) {
    COHORT_ASSIGN_OR_RETURN(const std::string theirs,
                            Exchange(absl::StrCat("agree", agreed_++), absl::StrCat(value)));
    return rank() == 0 ? value : std::atoi(theirs.c_str());
  }

 private:
  absl::Status Meet() { return engine_->Barrier({peer_}, 0).Wait(); }

  Work Write(size_t bytes, std::optional<uint32_t> immediate) {
    return engine_->Write({.peer = peer_, .from = from_, .to = to_, .bytes = bytes, .immediate = immediate});
  }

  absl::StatusOr<std::string> Exchange(const std::string& key, const std::string& mine) {
    COHORT_RETURN_IF_ERROR(board_->Put(absl::StrCat("transfer-", key, "-", rank()), mine));
    return board_->Get(absl::StrCat("transfer-", key, "-", 1 - rank()), absl::Now() + kPatience);
  }

  const TransferFlags& flags_;
  std::shared_ptr<comm::Rendezvous> board_;
  std::vector<std::byte> source_, target_;
  std::unique_ptr<TransferEngine> engine_;
  Region from_, to_;
  PeerId peer_{};
  std::string other_host_;
  int hosts_ = 1;
  int port_ = 0;
  int agreed_ = 0;
};

absl::Status BenchTransfer(const TransferFlags& flags) {
  setenv("COHORT_PEER_SILENCE_MS", "60000", /*overwrite=*/0);  // ranks may outnumber cores
  TransferBench bench(flags);
  COHORT_RETURN_IF_ERROR(bench.Connect());
  const bool prints = bench.rank() == 0;
  std::vector<nlohmann::ordered_json> rows;
  const struct {
    const char* name;
    const std::vector<size_t>& sizes;
    absl::StatusOr<double> (TransferBench::*run)(size_t, int);
    std::vector<std::string> tests;
    int most;
  } kinds[] = {
      {"write_latency", flags.latency_bytes, &TransferBench::Latency, {"ucp_put_lat", "ucp_am_lat"}, 100'000},
      {"write_bandwidth",
       flags.bandwidth_bytes,
       &TransferBench::Bandwidth,
       {"ucp_put_bw", "ucp_am_bw"},
       10'000}};
  for (const auto& kind : kinds) {
    const bool latency = kind.most > 10'000;
    if (prints) {
      std::printf("\n%s, hosts: %d; %s\n%10s %12s %12s %12s  ratio to the best of ucx_perftest\n", kind.name,
                  bench.hosts(), latency ? "microseconds one way" : "MB/s", "bytes", "cohort",
                  kind.tests[0].c_str(), kind.tests[1].c_str());
    }
    for (const size_t bytes : kind.sizes) {
      COHORT_ASSIGN_OR_RETURN(const double estimate, (bench.*kind.run)(bytes, latency ? 200 : 20));
      COHORT_ASSIGN_OR_RETURN(
          const int runs,
          bench.Agree(static_cast<int>(std::clamp(flags.seconds / estimate, 20.0, double(kind.most)))));
      std::vector<std::vector<double>> seconds(3);
      for (int turn = 0; turn < flags.turns; ++turn) {
        COHORT_ASSIGN_OR_RETURN(seconds[0].emplace_back(), (bench.*kind.run)(bytes, runs));
        for (size_t test = 0; test < kind.tests.size(); ++test) {
          COHORT_ASSIGN_OR_RETURN(seconds[test + 1].emplace_back(),
                                  bench.Perftest(kind.tests[test], bytes, runs));
        }
      }
      if (!prints) continue;
      std::string line = absl::StrFormat("%10d", bytes);
      for (size_t who = 0; who < seconds.size(); ++who) {
        const double median = Median(seconds[who]);
        absl::StrAppend(
            &line,
            absl::StrFormat(" %12.2f", latency ? median * 1e6 : static_cast<double>(bytes) / median / 1e6));
        rows.push_back({{"op", kind.name},
                        {"hosts", bench.hosts()},
                        {"ranks", 2},
                        {"bytes", bytes},
                        {"who", who == 0 ? "cohort" : "ucx_perftest"},
                        {"algorithm", who == 0 ? (latency ? "write_imm" : "write") : kind.tests[who - 1]},
                        {"median_s", median},
                        {"bytes_per_s", static_cast<double>(bytes) / median}});
      }
      const double best = std::min(Median(seconds[1]), Median(seconds[2]));
      std::printf("%s  %6.2f\n", line.c_str(),
                  latency ? Median(seconds[0]) / best : best / Median(seconds[0]));
      std::fflush(stdout);
    }
  }
  return prints ? WriteRows(rows, flags.json) : absl::OkStatus();
}

}  // namespace

void AddBenchTransfer(CLI::App& bench, const Selected& selected) {
  CLI::App* app = bench.add_subcommand(
      "transfer", "The transfer engine beside ucx_perftest, between two ranks; run it under mpirun -np 2");
  const auto flags = std::make_shared<TransferFlags>();
  app->add_option("--latency-bytes", flags->latency_bytes, "Sizes of writes whose latency is measured")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app->add_option("--bandwidth-bytes", flags->bandwidth_bytes, "Sizes of writes whose bandwidth is measured")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app->add_option("--turns", flags->turns, "Of each contestant")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app->add_option("--seconds", flags->seconds, "Of a turn")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_flag("--network", flags->network, "Both over the network, also on one host");
  app->add_option("--rails", flags->rails, "Network interfaces, e.g. eth0,eth1; ucx_perftest has the first")
      ->delimiter(',');
  app->add_option("--address", flags->address, "Of the second rank's host, where its name does not reach it");
  app->add_option("--port", flags->port, "The first of 1000 ports for ucx_perftest")
      ->check(CLI::Range(1024, 64'000))
      ->capture_default_str();
  app->add_option("--json", flags->json, "Write one JSON object a row to this file");
  app->callback([=] { selected([=] { return BenchTransfer(*flags); }); });
}

}  // namespace cohort::tools
