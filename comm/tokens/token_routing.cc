#include "comm/tokens/token_routing.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"

namespace cohort::comm {
namespace {

// Of what must be equal on all ranks. 0 stands for a rank that cannot take part.
uint32_t DigestOf(const TokenChoices& choices) {
  uint64_t hash =
      (0xcbf29ce484222325ull ^ static_cast<uint64_t>(choices.k)) * 0x100000001b3ull;  // FNV-1a, by words
  for (const int32_t rank : choices.rank_of_expert) {
    hash = (hash ^ static_cast<uint32_t>(rank)) * 0x100000001b3ull;
  }
  return static_cast<uint32_t>(hash ^ hash >> 32) | 1;
}

absl::Status Check(const TokenChoices& choices, int size) {
  if (choices.k < 1) return absl::InvalidArgumentError(absl::StrCat("k = ", choices.k, " experts a token"));
  if (choices.experts.size() % choices.k != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d experts are not %d for each token", choices.experts.size(), choices.k));
  }
  if (choices.experts.size() > INT32_MAX) return absl::InvalidArgumentError("too many tokens");
  if (!choices.weights.empty() && choices.weights.size() != choices.experts.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("%d weights for %d experts: one for each is needed",
                                                      choices.weights.size(), choices.experts.size()));
  }
  for (size_t e = 0; e < choices.rank_of_expert.size(); ++e) {
    if (const int32_t rank = choices.rank_of_expert[e]; rank < 0 || rank >= size) {
      return absl::InvalidArgumentError(
          absl::StrFormat("expert %d is on rank %d of a group of %d ranks", e, rank, size));
    }
  }
  const int32_t known = static_cast<int32_t>(choices.rank_of_expert.size());
  for (size_t i = 0; i < choices.experts.size(); ++i) {
    if (const int32_t expert = choices.experts[i]; expert < -1 || expert >= known) {
      return absl::InvalidArgumentError(
          absl::StrFormat("token %d has expert %d of %d", i / choices.k, expert, known));
    }
  }
  return absl::OkStatus();
}

RankLists Destinations(const TokenChoices& choices) {
  RankLists lists;
  std::vector<int32_t> ranks;
  for (size_t first = 0; first < choices.experts.size(); first += choices.k) {
    ranks.clear();
    for (const int32_t expert : choices.experts.subspan(first, choices.k)) {
      if (expert >= 0) ranks.push_back(choices.rank_of_expert[expert]);
    }
    std::sort(ranks.begin(), ranks.end());
    ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
    lists.Add(ranks);
  }
  return lists;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenRouting>> TokenRouting::Create(Communicator& group,
                                                                   const TokenChoices& choices) {
  std::unique_ptr<TokenRouting> routing(new TokenRouting(group));
  const absl::Status valid = Check(choices, group.size());
  COHORT_RETURN_IF_ERROR(routing->Exchange(choices, valid));
  return routing;
}

// A rank tells every other one, in words of 32 bits: which tokens that one must pass on, as for each the number of its
// destinations there and their places on the host; then which tokens are for that one itself, as for each its number,
// the number of its experts there, and these with their weights. How many words, and the digest, go before.
absl::Status TokenRouting::Exchange(const TokenChoices& choices, const absl::Status& valid) {
  const int size = group_.size();
  routes_.rank = group_.rank();
  routes_.hosts = group_.topology().map();
  routes_.passing.resize(size);
  routes_.received.assign(size, 0);
  digest_ = valid.ok() ? DigestOf(choices) : 0;
  if (valid.ok()) routes_.own = Destinations(choices);

  const HostMap& hosts = *routes_.hosts;
  std::vector<std::vector<int32_t>> words(size);
  std::vector<size_t> passing_words(size, 0);
  for (int host = 0; host < hosts.num_hosts(); ++host) {
    if (host == hosts.host_of(routes_.rank)) continue;
    const int forwarder = Forwarder(hosts, routes_.rank, host);
    const RankLists lists = ListsOn(routes_.own, hosts, host);
    for (size_t t = 0; t < lists.size(); ++t) {
      words[forwarder].push_back(static_cast<int32_t>(lists[t].size()));
      for (const int32_t rank : lists[t]) words[forwarder].push_back(hosts.local_rank(rank));
    }
    passing_words[forwarder] = words[forwarder].size();
  }
  for (size_t t = 0; t < routes_.own.size(); ++t) {
    for (const int32_t rank : routes_.own[t]) {
      std::vector<int32_t>& to = words[rank];
      to.push_back(static_cast<int32_t>(t));
      const size_t number = to.size();
      to.push_back(0);
      for (size_t i = t * choices.k; i < (t + 1) * choices.k; ++i) {
        if (choices.experts[i] < 0 || choices.rank_of_expert[choices.experts[i]] != rank) continue;
        ++to[number];
        to.push_back(choices.experts[i]);
        to.push_back(std::bit_cast<int32_t>(choices.weights.empty() ? 1.0f : choices.weights[i]));
      }
    }
  }

  struct Ahead {
    int64_t words, passing_words, digest;
  };
  std::vector<Ahead> say(size), heard(size);
  std::vector<size_t> send_counts(size), recv_counts(size);
  std::vector<int32_t> send;
  for (int peer = 0; peer < size; ++peer) {
    send_counts[peer] = words[peer].size();
    say[peer] = {static_cast<int64_t>(words[peer].size()), static_cast<int64_t>(passing_words[peer]),
                 digest_};
    send.insert(send.end(), words[peer].begin(), words[peer].end());
  }
  COHORT_RETURN_IF_ERROR(group_.AllToAll(say.data(), heard.data(), 3, DataType::kI64).Wait());
  COHORT_RETURN_IF_ERROR(valid);
  size_t total = 0;
  for (int peer = 0; peer < size; ++peer) {
    if (heard[peer].digest == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", peer, " was given tokens that it cannot route; its own error says why"));
    }
    if (heard[peer].digest != digest_) {
      return absl::InvalidArgumentError(absl::StrCat("rank ", peer,
                                                     " has another k, or its experts elsewhere, than rank ",
                                                     routes_.rank, ": give all ranks the same"));
    }
    recv_counts[peer] = static_cast<size_t>(heard[peer].words);
    total += recv_counts[peer];
  }
  std::vector<int32_t> came(total);
  COHORT_RETURN_IF_ERROR(
      group_.AllToAllV(send.data(), send_counts, came.data(), recv_counts, DataType::kI32).Wait());
  absl::Span<const int32_t> rest = came;
  for (int source = 0; source < size; ++source) {
    COHORT_RETURN_IF_ERROR(ReadRoutes(source, rest.subspan(0, recv_counts[source]),
                                      static_cast<size_t>(heard[source].passing_words)));
    rest.remove_prefix(recv_counts[source]);
  }
  return absl::OkStatus();
}

absl::Status TokenRouting::ReadRoutes(int source, absl::Span<const int32_t> words, size_t passing_words) {
  const auto unknown = [&] {
    return absl::InternalError(absl::StrCat("what rank ", source, " says of its tokens cannot be read"));
  };
  const auto local = routes_.hosts->ranks_on(routes_.hosts->host_of(routes_.rank));
  if (passing_words > words.size()) return unknown();
  absl::Span<const int32_t> passing = words.subspan(0, passing_words);
  std::vector<int32_t> ranks;
  while (!passing.empty()) {
    const size_t number = static_cast<size_t>(passing[0]);
    if (number >= passing.size()) return unknown();
    ranks.clear();
    for (const int32_t place : passing.subspan(1, number)) {
      if (place < 0 || static_cast<size_t>(place) >= local.size()) return unknown();
      ranks.push_back(local[place]);
    }
    routes_.passing[source].Add(ranks);
    passing.remove_prefix(1 + number);
  }
  for (words.remove_prefix(passing_words); !words.empty(); ++routes_.received[source]) {
    const size_t number = words.size() < 2 ? SIZE_MAX : static_cast<size_t>(words[1]);
    if (number > (words.size() - 2) / 2) return unknown();
    rows_.push_back({source, words[0], experts_.size()});
    for (size_t i = 0; i < number; ++i) {
      experts_.push_back({words[2 + 2 * i], std::bit_cast<float>(words[3 + 2 * i])});
    }
    words.remove_prefix(2 + 2 * number);
  }
  return absl::OkStatus();
}

Work TokenRouting::Dispatch(const void* tokens, void* received, size_t width, DataType dtype) {
  return Move(Operation::kTokenDispatch, tokens, received, width, dtype);
}

Work TokenRouting::Combine(const void* received, void* tokens, size_t width, DataType dtype) {
  return Move(Operation::kTokenCombine, received, tokens, width, dtype);
}

Work TokenRouting::Move(Operation operation, const void* from, void* to, size_t width, DataType dtype) {
  const bool dispatch = operation == Operation::kTokenDispatch;
  const size_t row_bytes = width * SizeOf(dtype);
  const size_t rows_from = dispatch ? num_tokens() : num_received(),
               rows_to = dispatch ? num_received() : num_tokens();
  if (group_.epoch() != epoch_) {
    return Work(
        absl::FailedPreconditionError("the group was edited since its tokens were routed: route them again"));
  }
  if (width > (SIZE_MAX >> 8) / std::max({size_t{1}, rows_from, rows_to})) {
    return Work(absl::InvalidArgumentError(absl::StrCat("rows of ", width, " elements are too many bytes")));
  }
  if ((from == nullptr && rows_from * width > 0) || (to == nullptr && rows_to * width > 0)) {
    return Work(absl::InvalidArgumentError(absl::StrCat(Name(operation), ": a buffer is null")));
  }
  if (from == to && from != nullptr) {
    return Work(absl::InvalidArgumentError(absl::StrCat(Name(operation), " cannot work in place")));
  }
  if (!dispatch && row_bytes > 0) {
    for (size_t t = 0; t < rows_to; ++t) {
      if (routes_.own[t].empty()) std::memset(static_cast<std::byte*>(to) + t * row_bytes, 0, row_bytes);
    }
  }
  std::shared_ptr<const Schedule> schedule;
  {
    const std::lock_guard lock(mutex_);
    if (width != width_) schedules_ = {};
    width_ = width;
    auto& kept = dispatch ? schedules_.first : schedules_.second;
    if (kept == nullptr) {
      kept = std::make_shared<const Schedule>(dispatch ? DispatchTokens(routes_, width)
                                                       : CombineTokens(routes_, width));
    }
    schedule = kept;
  }
  return group_.MoveTokens({operation, std::move(schedule), digest_, from, to, width, dtype});
}

}  // namespace cohort::comm
