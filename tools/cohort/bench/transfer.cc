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
#include <memory>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/pause.h"
#include "comm/rendezvous.h"
#include "comm/ticks.h"
#include "comm/transfer/transfer_engine.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/bench/perftest.h"

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

// Begins at a page, as ucx_perftest's memory does, which copies faster than one whose vectors lie across cache lines.
class PageBuffer {
 public:
  explicit PageBuffer(size_t bytes, std::byte fill = {})
      : data_(static_cast<std::byte*>(std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage)),
              &std::free) {
    COHORT_CHECK(data_ != nullptr, "no memory for %zu bytes", bytes);
    std::fill_n(data_.get(), bytes, fill);
  }
  std::byte* data() const { return data_.get(); }

 private:
  static constexpr size_t kPage = 4096;
  std::unique_ptr<std::byte[], decltype(&std::free)> data_;
};

// Whose memory is written to: the user's, or the engine's own, which peers of the host map.
enum Memory { kRegistered, kAllocated };

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
    source_.emplace(bytes, std::byte{1});
    target_.emplace(bytes);
    Options options;
    options.name = absl::StrCat("rank ", rank());
    options.rails = flags_.rails;
    options.shared_memory = !flags_.network;
    options.timeout = kPatience;
    COHORT_ASSIGN_OR_RETURN(engine_, TransferEngine::Create(options));
    COHORT_ASSIGN_OR_RETURN(from_, engine_->Register(source_->data(), bytes));
    // Of the same numbers there.
    COHORT_ASSIGN_OR_RETURN(to_[kRegistered], engine_->Register(target_->data(), bytes));
    COHORT_ASSIGN_OR_RETURN(const auto allocated, engine_->Allocate(bytes));
    to_[kAllocated] = allocated.region;
    data_[kRegistered] = target_->data();
    data_[kAllocated] = allocated.data;
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

  // Half a round trip of so many bytes; `runs` of them. ucx_perftest gives the median too.
  absl::StatusOr<double> Latency(Memory memory, size_t bytes, int runs) {
    return RoundTrips(runs, [&](int, bool send) -> absl::Status {
      if (!send) return engine_->Expect({.immediate = kPing}).Wait();
      return Keep(Write(memory, bytes, kPing));
    });
  }

  // The same without an immediate: the target looks at the last byte, as ucx_perftest does.
  absl::StatusOr<double> PolledLatency(Memory memory, size_t bytes, int runs) {
    volatile std::byte* const last = data_[memory] + bytes - 1;
    *last = std::byte{0};  // no mark
    return RoundTrips(runs, [&](int run, bool send) -> absl::Status {
      const auto mark = static_cast<std::byte>(run % 100 + 1);
      if (send) {
        source_->data()[bytes - 1] = mark;
        return Keep(Write(memory, bytes, std::nullopt));
      }
      for (uint64_t looks = 0; *last != mark; ++looks) {
        if (looks == 2'000'000'000) return absl::DeadlineExceededError("a write did not arrive");
        comm::Pause();
      }
      return absl::OkStatus();
    });
  }

  // Seconds a write, from rank 0 to rank 1.
  absl::StatusOr<double> Bandwidth(Memory memory, size_t bytes, int runs) {
    COHORT_RETURN_IF_ERROR(Meet());
    const auto begin = std::chrono::steady_clock::now();
    for (int run = 0; run < runs && rank() == 0; ++run)
      COHORT_RETURN_IF_ERROR(Keep(Write(memory, bytes, std::nullopt)));
    COHORT_RETURN_IF_ERROR(Finish());
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

  Work Write(Memory memory, size_t bytes, std::optional<uint32_t> immediate) {
    return engine_->Write(
        {.peer = peer_, .from = from_, .to = to_[memory], .bytes = bytes, .immediate = immediate});
  }

  // Some writes are in flight at a time.
  absl::Status Keep(Work work) {
    works_.push_back(std::move(work));
    if (works_.size() < kInFlight) return absl::OkStatus();
    const Work oldest = std::move(works_.front());
    works_.pop_front();
    return oldest.Wait();
  }
  absl::Status Finish() {
    for (; !works_.empty(); works_.pop_front()) COHORT_RETURN_IF_ERROR(works_.front().Wait());
    return absl::OkStatus();
  }

  // Rank 0 sends and receives, the other one receives and sends.
  template <typename Step>
  absl::StatusOr<double> RoundTrips(int runs, const Step& step) {
    COHORT_RETURN_IF_ERROR(Meet());
    std::vector<double> ticks(runs);
    const int64_t first = comm::NowTicks();
    int64_t begin = first;
    for (int run = 0; run < runs; ++run) {
      COHORT_RETURN_IF_ERROR(step(run, rank() == 0));
      COHORT_RETURN_IF_ERROR(step(run, rank() != 0));
      // Stamps as ucx_perftest takes them: asking for the time would be a good part of what is measured.
      const int64_t end = comm::NowTicks();
      ticks[run] = static_cast<double>(end - begin) / 2;
      begin = end;
    }
    const double seconds_a_tick = static_cast<double>(comm::NanosOfTicks(begin) - comm::NanosOfTicks(first)) /
                                  1e9 / static_cast<double>(begin - first);
    COHORT_RETURN_IF_ERROR(Finish());
    return Median(ticks) * seconds_a_tick;
  }

  absl::StatusOr<std::string> Exchange(const std::string& key, const std::string& mine) {
    COHORT_RETURN_IF_ERROR(board_->Put(absl::StrCat("transfer-", key, "-", rank()), mine));
    return board_->Get(absl::StrCat("transfer-", key, "-", 1 - rank()), absl::Now() + kPatience);
  }

  const TransferFlags& flags_;
  std::shared_ptr<comm::Rendezvous> board_;
  std::optional<PageBuffer> source_, target_;
  std::unique_ptr<TransferEngine> engine_;
  Region from_, to_[2];
  std::byte* data_[2] = {};
  std::deque<Work> works_;
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
  // Within a host it matters whose memory it is.
  const bool near = bench.hosts() == 1 && !flags.network;
  using Run = absl::StatusOr<double> (TransferBench::*)(Memory, size_t, int);
  struct Cohort {
    const char* algorithm;
    Memory memory;
    Run run;
  };
  struct Kind {
    const char* name;
    const std::vector<size_t>& sizes;
    std::vector<Cohort> cohort;
    std::vector<std::string> tests;
    int most;
  };
  Kind latency = {"write_latency", flags.latency_bytes, {}, {"ucp_put_lat", "ucp_am_lat"}, 100'000};
  Kind bandwidth = {"write_bandwidth", flags.bandwidth_bytes, {}, {"ucp_put_bw", "ucp_am_bw"}, 10'000};
  if (near) {
    latency.cohort.push_back({"write_imm", kAllocated, &TransferBench::Latency});
    latency.cohort.push_back({"write", kAllocated, &TransferBench::PolledLatency});
    bandwidth.cohort.push_back({"write", kAllocated, &TransferBench::Bandwidth});
  }
  latency.cohort.push_back({"write_imm", kRegistered, &TransferBench::Latency});
  bandwidth.cohort.push_back({"write", kRegistered, &TransferBench::Bandwidth});
  for (const Kind& kind : {latency, bandwidth}) {
    const bool is_latency = kind.most > 10'000;
    if (prints) {
      std::string header =
          absl::StrFormat("\n%s, hosts: %d; %s; ratio to the best of ucx_perftest\n%9s", kind.name,
                          bench.hosts(), is_latency ? "microseconds one way" : "MB/s", "bytes");
      for (const Cohort& one : kind.cohort)
        absl::StrAppendFormat(
            &header, " %16s ratio",
            absl::StrCat(one.algorithm, near ? one.memory == kAllocated ? "/alloc" : "/reg" : ""));
      for (const std::string& test : kind.tests) absl::StrAppendFormat(&header, " %12s", test);
      std::printf("%s\n", header.c_str());
    }
    for (const size_t bytes : kind.sizes) {
      COHORT_ASSIGN_OR_RETURN(const double estimate,
                              (bench.*kind.cohort.back().run)(kRegistered, bytes, is_latency ? 200 : 20));
      COHORT_ASSIGN_OR_RETURN(
          const int runs,
          bench.Agree(static_cast<int>(std::clamp(flags.seconds / estimate, 20.0, double(kind.most)))));
      std::vector<std::vector<double>> cohort(kind.cohort.size()), peers(kind.tests.size());
      for (int turn = 0; turn < flags.turns; ++turn) {
        for (size_t who = 0; who < cohort.size(); ++who) {
          const Cohort& one = kind.cohort[who];
          COHORT_ASSIGN_OR_RETURN(cohort[who].emplace_back(), (bench.*one.run)(one.memory, bytes, runs));
        }
        for (size_t test = 0; test < peers.size(); ++test) {
          COHORT_ASSIGN_OR_RETURN(peers[test].emplace_back(), bench.Perftest(kind.tests[test], bytes, runs));
        }
      }
      if (!prints) continue;
      const auto shown = [&](double median) {
        return is_latency ? median * 1e6 : static_cast<double>(bytes) / median / 1e6;
      };
      const auto row = [&](const char* who, const std::string& algorithm, const char* memory, double median) {
        rows.push_back({{"op", kind.name},
                        {"hosts", bench.hosts()},
                        {"ranks", 2},
                        {"bytes", bytes},
                        {"who", who},
                        {"algorithm", algorithm},
                        {"memory", memory},
                        {"rails", std::max<size_t>(flags.rails.size(), 1)},
                        {"median_s", median},
                        {"bytes_per_s", static_cast<double>(bytes) / median}});
      };
      const double best = std::min(Median(peers[0]), Median(peers[1]));
      std::string line = absl::StrFormat("%9d", bytes);
      for (size_t who = 0; who < cohort.size(); ++who) {
        const double median = Median(cohort[who]);
        absl::StrAppendFormat(&line, " %16.*f %5.2f", is_latency ? 3 : 0, shown(median),
                              is_latency ? median / best : best / median);
        row("cohort", kind.cohort[who].algorithm,
            kind.cohort[who].memory == kAllocated ? "allocated" : "registered", median);
      }
      for (size_t test = 0; test < peers.size(); ++test) {
        absl::StrAppendFormat(&line, " %12.*f", is_latency ? 3 : 0, shown(Median(peers[test])));
        row("ucx_perftest", kind.tests[test], "allocated", Median(peers[test]));
      }
      std::printf("%s\n", line.c_str());
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
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->check(CLI::PositiveNumber);
  app->add_option("--bandwidth-bytes", flags->bandwidth_bytes, "Sizes of writes whose bandwidth is measured")
      ->delimiter(',')
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
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
