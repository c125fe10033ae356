// cohort bench tokens: the dispatch and combine of a mixture of experts, forwarded by hosts, beside the same over a
// plain all-to-all-v, in one run. They take turns; the median counts. A token's row goes to the ranks of its K experts,
// drawn alike for both; a row of the plain exchange is packed for each of these ranks and the rows that come back are
// added, as the forwarding does inside.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/communicator.h"
#include "comm/reduce.h"
#include "comm/tokens/token_routing.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/bench/wire.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

using comm::Communicator;

constexpr absl::Duration kPatience = absl::Minutes(2);

struct TokenFlags {
  int tokens = 256, experts = 64, top_k = 8, turns = 9;
  size_t width = 2048;
  uint32_t seed = 1;
  std::string json;
};

// The chance that none of `part` of the experts is among K drawn of all: C(E - part, K) / C(E, K).
double Missed(double experts, double part, int k) {
  double chance = 1;
  for (int i = 0; i < k; ++i) chance *= std::max(0.0, experts - part - i) / (experts - i);
  return chance;
}

// What one way of doing it needs for a turn.
class Contestant {
 public:
  virtual ~Contestant() = default;
  virtual absl::Status Dispatch() = 0;
  virtual absl::Status Combine() = 0;
  virtual size_t rows_crossing() const = 0;  // that this rank sends to other hosts in a dispatch
};

class Forwarding : public Contestant {
 public:
  Forwarding(std::unique_ptr<comm::TokenRouting> routing, const std::vector<BFloat16>& tokens, size_t width)
      : routing_(std::move(routing)),
        tokens_(tokens),
        width_(width),
        received_(routing_->num_received() * width),
        back_(tokens.size()) {}

  absl::Status Dispatch() override {
    return routing_->Dispatch(tokens_.data(), received_.data(), width_, DataType::kBF16).Wait();
  }
  absl::Status Combine() override {
    return routing_->Combine(received_.data(), back_.data(), width_, DataType::kBF16).Wait();
  }
  size_t rows_crossing() const override { return routing_->num_crossing(); }
  const std::vector<BFloat16>& back() const { return back_; }

 private:
  const std::unique_ptr<comm::TokenRouting> routing_;
  const std::vector<BFloat16>& tokens_;
  const size_t width_;
  std::vector<BFloat16> received_, back_;
};

class Plain : public Contestant {
 public:
  // destinations[t]: ranks of token t, ascending; received: rows from each rank.
  Plain(Communicator& world, const std::vector<std::vector<int>>& destinations,
        absl::Span<const size_t> received, const std::vector<BFloat16>& tokens, size_t width)
      : world_(world),
        tokens_(tokens),
        width_(width),
        send_counts_(world.size()),
        recv_counts_(world.size()),
        rows_(world.size()),
        back_(tokens.size()) {
    size_t sent = 0, got = 0;
    for (size_t t = 0; t < destinations.size(); ++t) {
      for (const int rank : destinations[t]) rows_[rank].push_back(t);
    }
    for (int rank = 0; rank < world.size(); ++rank) {
      send_counts_[rank] = rows_[rank].size() * width;
      recv_counts_[rank] = received[rank] * width;
      sent += send_counts_[rank];
      got += recv_counts_[rank];
      if (!world.topology().map()->SameHost(rank, world.rank())) crossing_ += rows_[rank].size();
    }
    packed_.resize(sent);
    received_.resize(got);
  }

  absl::Status Dispatch() override {
    BFloat16* at = packed_.data();
    for (const auto& rows : rows_) {
      for (const size_t row : rows) {
        std::memcpy(at, tokens_.data() + row * width_, width_ * sizeof(BFloat16));
        at += width_;
      }
    }
    return world_.AllToAllV(packed_.data(), send_counts_, received_.data(), recv_counts_, DataType::kBF16)
        .Wait();
  }
  absl::Status Combine() override {
    COHORT_RETURN_IF_ERROR(
        world_.AllToAllV(received_.data(), recv_counts_, packed_.data(), send_counts_, DataType::kBF16)
            .Wait());
    const comm::ReduceFunction add = comm::FindReduce(DataType::kBF16, comm::ReduceOp::kSum);
    std::vector<bool> begun(tokens_.size() / width_, false);
    const BFloat16* at = packed_.data();
    for (const auto& rows : rows_) {
      for (const size_t row : rows) {
        auto* sum = reinterpret_cast<std::byte*>(back_.data() + row * width_);
        const auto* summand = reinterpret_cast<const std::byte*>(at);
        if (begun[row])
          add(sum, summand, sum, width_);
        else
          std::memcpy(sum, summand, width_ * sizeof(BFloat16));
        begun[row] = true;
        at += width_;
      }
    }
    return absl::OkStatus();
  }
  size_t rows_crossing() const override { return crossing_; }
  const std::vector<BFloat16>& back() const { return back_; }

 private:
  Communicator& world_;
  const std::vector<BFloat16>& tokens_;
  const size_t width_;
  std::vector<size_t> send_counts_, recv_counts_;
  std::vector<std::vector<size_t>> rows_;  // by destination
  std::vector<BFloat16> packed_, received_, back_;
  size_t crossing_ = 0;
};

struct Measured {
  const char* who;
  double expected_rows;  // a token
  double counted_rows = 0, wire_bytes = 0;
  std::vector<double> dispatch = {}, combine = {};
};

// The sum over ranks.
absl::StatusOr<int64_t> Total(Communicator& world, int64_t own) {
  COHORT_RETURN_IF_ERROR(world.AllReduce(&own, &own, 1, DataType::kI64).Wait());
  return own;
}

// What all hosts have sent: the first rank of each says it.
absl::StatusOr<int64_t> WireBytes(Communicator& world) {
  COHORT_RETURN_IF_ERROR(world.Barrier().Wait());
  return Total(world, world.topology().local_rank() == 0 ? BytesSentByHost() : 0);
}

// The time of the slowest rank.
template <typename Call>
absl::StatusOr<double> Timed(Communicator& world, const Call& call) {
  COHORT_RETURN_IF_ERROR(world.Barrier().Wait());
  const auto begin = std::chrono::steady_clock::now();
  COHORT_RETURN_IF_ERROR(call());
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  COHORT_RETURN_IF_ERROR(world.AllReduce(&seconds, &seconds, 1, DataType::kF64, comm::ReduceOp::kMax).Wait());
  return seconds;
}

absl::Status BenchTokens(const TokenFlags& flags) {
  // Ranks may outnumber cores: who does not answer for a while is not lost.
  setenv("COHORT_PEER_SILENCE_MS", "60000", /*overwrite=*/0);
  COHORT_ASSIGN_OR_RETURN(const auto world, JoinWorld(kPatience));
  const int size = world->size(), hosts = world->topology().num_hosts();
  if (flags.experts % size != 0 || flags.top_k > flags.experts) {
    return absl::InvalidArgumentError(
        absl::StrCat("--experts must be a multiple of the ", size, " ranks, and --top-k at most as many"));
  }
  // Experts in order, equally many a rank; K different ones for each token.
  std::vector<int32_t> rank_of_expert, experts, all(flags.experts);
  for (int e = 0; e < flags.experts; ++e) rank_of_expert.push_back(e / (flags.experts / size)), all[e] = e;
  std::mt19937 random(flags.seed * 1000 + static_cast<uint32_t>(world->rank()));
  std::vector<std::vector<int>> destinations(flags.tokens);
  for (auto& ranks : destinations) {
    for (int j = 0; j < flags.top_k; ++j) {
      std::swap(all[j], all[j + static_cast<int>(random() % static_cast<uint32_t>(flags.experts - j))]);
      experts.push_back(all[j]);
      ranks.push_back(rank_of_expert[all[j]]);
    }
    std::sort(ranks.begin(), ranks.end());
    ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  }
  std::vector<BFloat16> tokens(flags.tokens * flags.width);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = BFloat16(static_cast<float>(i % 7));

  const auto begin = std::chrono::steady_clock::now();
  COHORT_ASSIGN_OR_RETURN(auto routing,
                          comm::TokenRouting::Create(*world, {experts, flags.top_k, {}, rank_of_expert}));
  const double routed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  Plain plain(*world, destinations, routing->received_from(), tokens, flags.width);
  Forwarding forwarding(std::move(routing), tokens, flags.width);
  const double part = static_cast<double>(flags.experts);
  Measured measured[] = {{"forwarding", (hosts - 1) * (1 - Missed(part, part / hosts, flags.top_k))},
                         {"all-to-all-v", (size - static_cast<double>(size) / hosts) *
                                              (1 - Missed(part, part / size, flags.top_k))}};
  Contestant* const contestants[] = {&forwarding, &plain};
  for (int i = 0; i < 2; ++i) {
    COHORT_ASSIGN_OR_RETURN(const int64_t rows,
                            Total(*world, static_cast<int64_t>(contestants[i]->rows_crossing())));
    measured[i].counted_rows = static_cast<double>(rows) / (static_cast<double>(flags.tokens) * size);
  }
  for (int turn = -1; turn < flags.turns; ++turn) {  // the first one warms up
    for (int i = 0; i < 2; ++i) {
      COHORT_ASSIGN_OR_RETURN(const int64_t before, WireBytes(*world));
      COHORT_ASSIGN_OR_RETURN(const double dispatch,
                              Timed(*world, [&] { return contestants[i]->Dispatch(); }));
      COHORT_ASSIGN_OR_RETURN(const int64_t after, WireBytes(*world));
      COHORT_ASSIGN_OR_RETURN(const double combine, Timed(*world, [&] { return contestants[i]->Combine(); }));
      if (turn < 0) continue;
      measured[i].dispatch.push_back(dispatch);
      measured[i].combine.push_back(combine);
      measured[i].wire_bytes += static_cast<double>(after - before) / flags.turns;
    }
  }
  // Small whole numbers: sums are exact in any order.
  if (std::memcmp(forwarding.back().data(), plain.back().data(), tokens.size() * sizeof(BFloat16)) != 0) {
    return absl::InternalError("the two ways of combining differ");
  }
  if (world->rank() != 0) return absl::OkStatus();
  const double row_bytes = static_cast<double>(flags.width * sizeof(BFloat16));
  std::printf(
      "%d tokens a rank, %d experts, top %d, rows of %.0f bytes; %d ranks on %d hosts; routed in %.2f ms\n",
      flags.tokens, flags.experts, flags.top_k, row_bytes, size, hosts, routed * 1e3);
  std::printf("%-14s %13s %12s %22s %22s %16s\n", "", "dispatch ms", "combine ms", "rows crossing a token",
              "expected of a uniform", "dispatch MB sent");
  std::vector<nlohmann::ordered_json> rows;
  for (const Measured& m : measured) {
    std::printf("%-14s %13.3f %12.3f %22.4f %22.4f %16.3f\n", m.who, Median(m.dispatch) * 1e3,
                Median(m.combine) * 1e3, m.counted_rows, m.expected_rows, m.wire_bytes / 1e6);
    rows.push_back({{"bench", "tokens"},
                    {"who", m.who},
                    {"hosts", hosts},
                    {"ranks", size},
                    {"tokens", flags.tokens},
                    {"experts", flags.experts},
                    {"top_k", flags.top_k},
                    {"row_bytes", row_bytes},
                    {"dispatch_s", Median(m.dispatch)},
                    {"combine_s", Median(m.combine)},
                    {"rows_crossing", m.counted_rows},
                    {"rows_expected", m.expected_rows},
                    {"wire_bytes", m.wire_bytes}});
  }
  std::printf("all-to-all-v takes %.2f times as long to dispatch, and %.2f times to combine\n",
              Median(measured[1].dispatch) / Median(measured[0].dispatch),
              Median(measured[1].combine) / Median(measured[0].combine));
  return WriteRows(rows, flags.json);
}

}  // namespace

void AddBenchTokens(CLI::App& bench, const Selected& selected) {
  CLI::App* app = bench.add_subcommand("tokens",
                                       "Dispatch and combine of a mixture of experts, forwarded by hosts, "
                                       "beside a plain all-to-all-v; under mpirun");
  const auto flags = std::make_shared<TokenFlags>();
  app->add_option("--tokens", flags->tokens, "Tokens a rank")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_option("--experts", flags->experts, "Experts in all")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app->add_option("--top-k", flags->top_k, "Experts a token")
      ->check(CLI::Range(1, 1 << 10))
      ->capture_default_str();
  app->add_option("--width", flags->width, "Elements of a row, in bf16")
      ->check(CLI::Range(size_t{1}, size_t{1} << 24))
      ->capture_default_str();
  app->add_option("--turns", flags->turns, "Turns of each, of which the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app->add_option("--seed", flags->seed, "Of the choice of experts")->capture_default_str();
  app->add_option("--json", flags->json, "Write one JSON object a row to this file");
  app->callback([=] { selected([=] { return BenchTokens(*flags); }); });
}

}  // namespace cohort::tools
