#include <algorithm>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "parallel/reshard/reshard_plan.h"

namespace cohort::parallel {
namespace {

std::string Bytes(int64_t bytes) {
  if (bytes >= int64_t{10} << 30) return absl::StrCat(bytes >> 30, " GiB");
  if (bytes >= int64_t{10} << 20) return absl::StrCat(bytes >> 20, " MiB");
  if (bytes >= int64_t{10} << 10) return absl::StrCat(bytes >> 10, " KiB");
  return absl::StrCat(bytes, " B");
}

}  // namespace

ReshardTotals TotalsOf(const Layout& after, const ReshardOptions& options, const ReshardPlan& plan) {
  const auto host = [&](int rank) {
    return static_cast<size_t>(options.host_of.empty() ? 0 : options.host_of[static_cast<size_t>(rank)]);
  };
  ReshardTotals totals;
  absl::flat_hash_map<const void*, int64_t> bytes_of_list;
  for (const HeldPieces& pieces : after.ranks) {
    const auto [at, is_new] = bytes_of_list.try_emplace(pieces.identity(), 0);
    if (is_new) {
      for (const HeldBundle& bundle : pieces.bundles()) {
        at->second += bundle.count() * bundle.size() * static_cast<int64_t>(SizeOf(bundle.tensors->dtype));
      }
    }
    totals.total += at->second;
  }
  const auto world = static_cast<size_t>(after.world());
  const int hosts =
      options.host_of.empty() ? 1 : 1 + *std::max_element(options.host_of.begin(), options.host_of.end());
  std::vector<int64_t> sent(world), received(world);
  std::vector<int64_t> host_sent(static_cast<size_t>(hosts)), host_received(static_cast<size_t>(hosts));
  for (const PieceCopy& copy : plan.copies) {
    const DataType dtype =
        after.ranks[static_cast<size_t>(copy.destination)].dtype(static_cast<size_t>(copy.to_piece));
    const int64_t bytes = copy.elements() * static_cast<int64_t>(SizeOf(dtype));
    if (copy.stays()) {
      totals.stay += bytes;
      continue;
    }
    ++totals.messages;
    totals.blocks += copy.blocks;
    sent[static_cast<size_t>(copy.source)] += bytes;
    received[static_cast<size_t>(copy.destination)] += bytes;
    const size_t a = host(copy.source), b = host(copy.destination);
    (a == b ? totals.within_hosts : totals.between_hosts) += bytes;
    if (a != b) {
      host_sent[a] += bytes;
      host_received[b] += bytes;
    }
  }
  for (size_t rank = 0; rank < world; ++rank) {
    const auto number = static_cast<int>(rank);
    if (sent[rank] > totals.most_sent) totals.most_sent = sent[rank], totals.most_sent_rank = number;
    if (received[rank] > totals.most_received)
      totals.most_received = received[rank], totals.most_received_rank = number;
  }
  for (const int64_t bytes : host_sent) totals.host_bytes = std::max(totals.host_bytes, bytes);
  for (const int64_t bytes : host_received) totals.host_bytes = std::max(totals.host_bytes, bytes);
  return totals;
}

double LeastSeconds(const ReshardTotals& totals, const ReshardRates& rates) {
  const auto rank_bytes = static_cast<double>(std::max(totals.most_sent, totals.most_received));
  return std::max(rates.rank_bytes_per_second > 0 ? rank_bytes / rates.rank_bytes_per_second : 0.0,
                  rates.host_bytes_per_second > 0
                      ? static_cast<double>(totals.host_bytes) / rates.host_bytes_per_second
                      : 0.0);
}

std::string DebugString(const ReshardTotals& totals, const ReshardRates* rates) {
  std::string text = absl::StrCat(Bytes(totals.stay), " of ", Bytes(totals.total), " stay where they are\n",
                                  Bytes(totals.moved()), " move in ", totals.messages, " messages of ",
                                  totals.blocks, " blocks: ", Bytes(totals.within_hosts), " within hosts, ",
                                  Bytes(totals.between_hosts), " between them\n");
  if (totals.moved() == 0) return text;
  absl::StrAppend(&text, "most sent: ", Bytes(totals.most_sent), " by rank ", totals.most_sent_rank,
                  "; most received: ", Bytes(totals.most_received), " by rank ", totals.most_received_rank,
                  "\n");
  if (totals.between_hosts > 0) {
    absl::StrAppend(&text, "busiest host: ", Bytes(totals.host_bytes), " one way\n");
  }
  if (rates != nullptr) absl::StrAppend(&text, "at least ", LeastSeconds(totals, *rates), " s\n");
  return text;
}

}  // namespace cohort::parallel
