#include "runtime/elastic/parity/parity_balance.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

namespace cohort::runtime::elastic {
namespace {

class Balance {
 public:
  Balance(int hosts, const std::vector<std::vector<int>>& members, int each)
      : members_(members), keepers_(members.size()), kept_(hosts) {
    // The least loaded first, among equals the one that got its last block the longest ago.
    std::set<std::tuple<size_t, int, int>> order;
    for (int h = 0; h < hosts; ++h) order.insert({0, 0, h});
    int turn = 0;
    for (size_t s = 0; s < members.size(); ++s) {
      std::vector<std::tuple<size_t, int, int>> taken;
      for (auto at = order.begin(); static_cast<int>(taken.size()) < each; ++at) {
        if (!Contains(members[s], std::get<2>(*at))) taken.push_back(*at);
      }
      for (const auto& entry : taken) {
        const auto [load, when, host] = entry;
        order.erase(entry);
        order.insert({load + 1, ++turn, host});
        keepers_[s].push_back(host);
        kept_[host].push_back(static_cast<int>(s));
      }
    }
  }

  std::vector<std::vector<int>> Improve() {
    std::vector<int> order(kept_.size());
    std::iota(order.begin(), order.end(), 0);
    for (bool moved = true; moved;) {
      moved = false;
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return Load(a) > Load(b); });
      const size_t least = Load(order.back());
      for (const int host : order) {
        if (Load(host) < least + 2) break;
        if ((moved = MoveFrom(host))) break;
      }
    }
    return std::move(keepers_);
  }

 private:
  static bool Contains(const std::vector<int>& list, int host) {
    return std::find(list.begin(), list.end(), host) != list.end();
  }
  size_t Load(int host) const { return kept_[host].size(); }

  // The shortest chain of moves from this host to one with two blocks less; false where there is none.
  bool MoveFrom(int start) {
    struct Step {
      int from = -1, stripe = -1;
    };
    std::vector<Step> reached(kept_.size());
    std::vector<int> queue = {start}, unseen;
    for (int h = 0; h < static_cast<int>(kept_.size()); ++h) {
      if (h != start) unseen.push_back(h);
    }
    for (size_t i = 0; i < queue.size() && !unseen.empty(); ++i) {
      const int from = queue[i];
      for (const int stripe : kept_[from]) {
        std::vector<int> still;
        for (const int to : unseen) {
          if (Contains(members_[stripe], to) || Contains(keepers_[stripe], to)) {
            still.push_back(to);
            continue;
          }
          reached[to] = {from, stripe};
          if (Load(to) + 2 <= Load(start)) {
            for (int at = to; at != start; at = reached[at].from)
              Move(reached[at].stripe, reached[at].from, at);
            return true;
          }
          queue.push_back(to);
        }
        unseen = std::move(still);
        if (unseen.empty()) break;
      }
    }
    return false;
  }

  void Move(int stripe, int from, int to) {
    *std::find(keepers_[stripe].begin(), keepers_[stripe].end(), from) = to;
    kept_[from].erase(std::find(kept_[from].begin(), kept_[from].end(), stripe));
    kept_[to].push_back(stripe);
  }

  const std::vector<std::vector<int>>& members_;
  std::vector<std::vector<int>> keepers_;  // by stripe
  std::vector<std::vector<int>> kept_;     // by host: stripes
};

}  // namespace

std::vector<std::vector<int>> BalanceParity(int hosts, const std::vector<std::vector<int>>& members,
                                            int each) {
  return Balance(hosts, members, each).Improve();
}

}  // namespace cohort::runtime::elastic
