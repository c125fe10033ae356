#include "comm/tokens/routes.h"

#include <algorithm>
#include <numeric>

#include "comm/algorithms/algorithm.h"

namespace cohort::comm {
namespace {

bool Has(absl::Span<const int32_t> ranks, int rank) {
  return std::binary_search(ranks.begin(), ranks.end(), rank);
}

// The tokens whose lists name `rank`, ascending.
std::vector<size_t> TokensFor(const RankLists& lists, int rank) {
  std::vector<size_t> tokens;
  for (size_t t = 0; t < lists.size(); ++t) {
    if (Has(lists[t], rank)) tokens.push_back(t);
  }
  return tokens;
}

// The tokens of a rank that go to some rank of a host, ascending.
std::vector<size_t> TokensTo(const RankLists& lists, const HostMap& hosts, int host) {
  std::vector<size_t> tokens;
  for (size_t t = 0; t < lists.size(); ++t) {
    const auto ranks = lists[t];
    if (std::any_of(ranks.begin(), ranks.end(), [&](int rank) { return hosts.host_of(rank) == host; })) {
      tokens.push_back(t);
    }
  }
  return tokens;
}

// Visits (first token, first index in `tokens`, length) of what follows each other.
template <typename Visit>
void ForRuns(const std::vector<size_t>& tokens, const Visit& visit) {
  for (size_t i = 0; i < tokens.size();) {
    size_t end = i + 1;
    while (end < tokens.size() && tokens[end] == tokens[end - 1] + 1) ++end;
    visit(tokens[i], i, end - i);
    i = end;
  }
}

// What dispatch and combine have in common: the numbers of rows, and where they lie. A message is known by the source
// of its tokens, its tag: no two between the same ranks, in the same direction, have the same.
class Exchange {
 protected:
  Exchange(const TokenRoutes& routes, size_t width, size_t input_rows, size_t output_rows)
      : routes_(routes),
        hosts_(*routes.hosts),
        host_(hosts_.host_of(routes.rank)),
        width_(width),
        row_of_source_(algorithms::Offsets(routes.received)),
        builder_(input_rows * width, output_rows * width) {}

  // The rows that came from a source, in the buffer laid out by sources.
  Slice OfSource(Buffer buffer, int source) const {
    return {buffer, row_of_source_[source] * width_, routes_.received[source] * width_};
  }
  Slice Rows(const Slice& all, size_t first, size_t number) const {
    return all.Part(first * width_, number * width_);
  }
  // This rank is where the tokens of the source come to this host.
  bool Forwards(int source) const {
    return !hosts_.SameHost(source, routes_.rank) && Forwarder(hosts_, source, host_) == routes_.rank;
  }
  // Whom this rank has the tokens of a source from.
  int Via(int source) const {
    return hosts_.SameHost(source, routes_.rank) ? source : Forwarder(hosts_, source, host_);
  }
  template <typename Visit>
  void ForOtherHosts(const Visit& visit) const {
    for (int d = 1; d < hosts_.num_hosts(); ++d) visit(algorithms::Modulo(host_ + d, hosts_.num_hosts()));
  }

  const TokenRoutes& routes_;
  const HostMap& hosts_;
  const int host_;
  const size_t width_;
  const std::vector<size_t> row_of_source_;
  ScheduleBuilder builder_;
};

class Dispatch : Exchange {
 public:
  Dispatch(const TokenRoutes& routes, size_t width)
      : Exchange(routes, width, routes.own.size(), routes.num_received()),
        input_{Buffer::kInput, 0, routes.own.size() * width} {}

  Schedule Make() && {
    const int self = routes_.rank;
    // First what crosses, so that the links begin early.
    ForOtherHosts([&](int host) {
      Send(Forwarder(hosts_, self, host), self, input_, TokensTo(routes_.own, hosts_, host), kNoStep);
    });
    for (int source = 0; source < hosts_.size(); ++source) {
      if (Forwards(source))
        Forward(source);
      else if (source != self)
        builder_.Recv(Via(source), source, OfSource(Buffer::kOutput, source));
    }
    for (const int rank : hosts_.ranks_on(host_)) {
      if (rank == self)
        Keep(self, input_, kNoStep);
      else
        Send(rank, self, input_, TokensFor(routes_.own, rank), kNoStep);
    }
    return std::move(builder_).Build();
  }

 private:
  // Rows of `all`, which are there after a step, as one message.
  void Send(int peer, int source, const Slice& all, const std::vector<size_t>& tokens, StepId after) {
    if (tokens.empty()) return;
    if (tokens.back() - tokens.front() + 1 == tokens.size()) {
      builder_.Send(peer, source, Rows(all, tokens.front(), tokens.size()), {after});
      return;
    }
    const Slice packed = builder_.Scratch(tokens.size() * width_);
    std::vector<StepId> copies;
    ForRuns(tokens, [&](size_t token, size_t index, size_t number) {
      copies.push_back(builder_.Copy(Rows(all, token, number), Rows(packed, index, number), {after}));
    });
    builder_.Send(peer, source, packed, copies);
  }

  // Those of `all` that are for this rank itself.
  void Keep(int source, const Slice& all, StepId after) {
    const Slice place = OfSource(Buffer::kOutput, source);
    const auto& lists = source == routes_.rank ? routes_.own : routes_.passing[source];
    ForRuns(TokensFor(lists, routes_.rank), [&](size_t token, size_t index, size_t number) {
      builder_.Copy(Rows(all, token, number), Rows(place, index, number), {after});
    });
  }

  void Forward(int source) {
    const RankLists& lists = routes_.passing[source];
    if (lists.size() == 0) return;
    // Where this rank gets all of them, they come to their place.
    const bool all_kept = routes_.received[source] == lists.size();
    const Slice came = all_kept ? OfSource(Buffer::kOutput, source) : builder_.Scratch(lists.size() * width_);
    const StepId there = builder_.Recv(source, source, came);
    for (const int rank : hosts_.ranks_on(host_)) {
      if (rank != routes_.rank)
        Send(rank, source, came, TokensFor(lists, rank), there);
      else if (!all_kept)
        Keep(source, came, there);
    }
  }

  const Slice input_;
};

class CombineExchange : Exchange {
 public:
  CombineExchange(const TokenRoutes& routes, size_t width)
      : Exchange(routes, width, routes.num_received(), routes.own.size()) {}

  Schedule Make() && {
    const int self = routes_.rank;
    for (int source = 0; source < hosts_.size(); ++source) {
      if (Forwards(source))
        SumOfHost(source);
      else if (source != self)
        builder_.Send(Via(source), source, OfSource(Buffer::kInput, source));
    }
    Sum sum{{Buffer::kOutput, 0, routes_.own.size() * width_},
            std::vector<StepId>(routes_.own.size(), kNoStep)};
    for (const int rank : hosts_.ranks_on(host_)) {
      Add(rank, self, TokensFor(routes_.own, rank), &sum);
    }
    ForOtherHosts([&](int host) {
      Add(Forwarder(hosts_, self, host), self, TokensTo(routes_.own, hosts_, host), &sum);
    });
    return std::move(builder_).Build();
  }

 private:
  // Rows, and for each the step that made it what it is; none before the first summand.
  struct Sum {
    Slice rows;
    std::vector<StepId> last;
  };

  // What `peer` has for some tokens of a source: it comes, or is this rank's own.
  void Add(int peer, int source, const std::vector<size_t>& tokens, Sum* sum) {
    if (tokens.empty()) return;
    StepId there = kNoStep;
    Slice rows = OfSource(Buffer::kInput, source);
    if (peer != routes_.rank) {
      rows = builder_.Scratch(tokens.size() * width_);
      there = builder_.Recv(peer, source, rows);
    }
    // Neighbours in both, all of them first summands or none.
    for (size_t i = 0; i < tokens.size();) {
      const bool first = sum->last[tokens[i]] == kNoStep;
      std::vector<StepId> after = {there, sum->last[tokens[i]]};
      size_t end = i + 1;
      for (; end < tokens.size() && tokens[end] == tokens[end - 1] + 1; ++end) {
        const StepId last = sum->last[tokens[end]];
        if ((last == kNoStep) != first) break;
        if (last != after.back()) after.push_back(last);
      }
      const Slice from = Rows(rows, i, end - i), to = Rows(sum->rows, tokens[i], end - i);
      const StepId step = first ? builder_.Copy(from, to, after) : builder_.Reduce(from, to, after);
      for (; i < end; ++i) sum->last[tokens[i]] = step;
    }
  }

  // What the ranks of this host have for the tokens of a source on another one.
  void SumOfHost(int source) {
    const RankLists& lists = routes_.passing[source];
    if (lists.size() == 0) return;
    if (routes_.received[source] == lists.size()) {  // all come here: perhaps nowhere else
      size_t destinations = 0;
      for (size_t t = 0; t < lists.size(); ++t) destinations += lists[t].size();
      if (destinations == lists.size()) {
        builder_.Send(source, source, OfSource(Buffer::kInput, source));
        return;
      }
    }
    Sum sum{builder_.Scratch(lists.size() * width_), std::vector<StepId>(lists.size(), kNoStep)};
    for (const int rank : hosts_.ranks_on(host_)) Add(rank, source, TokensFor(lists, rank), &sum);
    std::sort(sum.last.begin(), sum.last.end());
    sum.last.erase(std::unique(sum.last.begin(), sum.last.end()), sum.last.end());
    builder_.Send(source, source, sum.rows, sum.last);
  }
};

}  // namespace

size_t TokenRoutes::num_received() const {
  return std::accumulate(received.begin(), received.end(), size_t{0});
}

size_t TokenRoutes::num_crossing() const {
  size_t rows = 0;
  for (int host = 0; host < hosts->num_hosts(); ++host) {
    if (host != hosts->host_of(rank)) rows += TokensTo(own, *hosts, host).size();
  }
  return rows;
}

int Forwarder(const HostMap& hosts, int source, int host) {
  const auto ranks = hosts.ranks_on(host);
  return ranks[static_cast<size_t>(hosts.local_rank(source)) % ranks.size()];
}

RankLists ListsOn(const RankLists& own, const HostMap& hosts, int host) {
  RankLists lists;
  std::vector<int32_t> there;
  for (size_t t = 0; t < own.size(); ++t) {
    there.clear();
    for (const int32_t rank : own[t]) {
      if (hosts.host_of(rank) == host) there.push_back(rank);
    }
    if (!there.empty()) lists.Add(there);
  }
  return lists;
}

Schedule DispatchTokens(const TokenRoutes& routes, size_t width) { return Dispatch(routes, width).Make(); }

Schedule CombineTokens(const TokenRoutes& routes, size_t width) {
  return CombineExchange(routes, width).Make();
}

}  // namespace cohort::comm
