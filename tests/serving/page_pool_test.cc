#include "serving/page_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace cohort::serving {
namespace {

using Pages = std::vector<int32_t>;

TEST(PagePoolTest, SharesWholePublishedPages) {
  PagePool pool(4, 2, true);
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5};
  const Pages pages = {pool.Allocate(), pool.Allocate(), pool.Allocate()};
  EXPECT_TRUE(pool.Find(tokens, 5).pages.empty());
  pool.Publish(tokens, pages, 0);
  pool.Publish(tokens, pages, 1);
  EXPECT_EQ(pool.Find(tokens, 5).pages, (Pages{pages[0], pages[1]}));
  EXPECT_EQ(pool.Find(tokens, 3).pages, Pages{pages[0]});  // at most three tokens
  const std::vector<int32_t> other = {1, 2, 9, 9};
  EXPECT_EQ(pool.Find(other, 4).pages, Pages{pages[0]});
  const std::vector<int32_t> shifted = {3, 4, 1, 2};
  EXPECT_TRUE(pool.Find(shifted, 4).pages.empty());
  pool.Acquire({pages[0]});
  EXPECT_EQ(pool.references(pages[0]), 2);
  const Pages second = {pages[0]};
  pool.CheckAgainst({pages, second});
}

TEST(PagePoolTest, IdlePagesStayUntilTheirPlaceIsNeeded) {
  PagePool pool(2, 1, true);
  const std::vector<int32_t> tokens = {7, 8};
  const Pages pages = {pool.Allocate(), pool.Allocate()};
  pool.Publish(tokens, pages, 0);
  pool.Publish(tokens, pages, 1);
  pool.Release(pages);
  EXPECT_EQ(pool.available(), 2);
  EXPECT_EQ(pool.Find(tokens, 2).idle, 2);
  // The end of a sequence goes first: its beginning is worth more.
  EXPECT_EQ(pool.Allocate(), pages[1]);
  EXPECT_EQ(pool.Find(tokens, 2).pages, Pages{pages[0]});
  pool.Acquire({pages[0]});
  EXPECT_EQ(pool.available(), 0);
}

TEST(PagePoolTest, PagesBehindALostOneCannotBeFound) {
  PagePool pool(3, 1, true);
  const std::vector<int32_t> tokens = {1, 2};
  Pages pages = {pool.Allocate(), pool.Allocate()};
  pool.Publish(tokens, pages, 0);
  pool.Publish(tokens, pages, 1);
  pool.Release({pages[0]});  // only the first is idle
  pool.Allocate();           // the unused one
  EXPECT_EQ(pool.Allocate(), pages[0]);
  EXPECT_TRUE(pool.Find(tokens, 2).pages.empty());
}

TEST(PagePoolTest, SharingCanBeOff) {
  PagePool pool(1, 1, false);
  const std::vector<int32_t> tokens = {1};
  const Pages pages = {pool.Allocate()};
  pool.Publish(tokens, pages, 0);
  EXPECT_TRUE(pool.Find(tokens, 1).pages.empty());
  pool.Release(pages);
  EXPECT_EQ(pool.available(), 1);
}

// Holders come and go; the books must balance, and a hit must always have the content that was published.
TEST(PagePoolTest, RandomUse) {
  std::mt19937 random(2);
  PagePool pool(12, 2, true);
  struct Holder {
    std::vector<int32_t> tokens;
    Pages pages;
  };
  std::vector<Holder> holders;
  std::vector<std::vector<int32_t>> content(12);
  int64_t hits = 0;
  for (int round = 0; round < 4000; ++round) {
    if (!holders.empty() && random() % 2 == 0) {
      const size_t i = random() % holders.size();
      pool.Release(holders[i].pages);
      holders.erase(holders.begin() + static_cast<int64_t>(i));
    } else {
      Holder holder;
      for (size_t i = 0; i < 2 * (1 + random() % 4); ++i) {
        holder.tokens.push_back(static_cast<int32_t>(random() % 2));
      }
      const PrefixHit hit = pool.Find(holder.tokens, static_cast<int32_t>(holder.tokens.size()));
      const auto needed = static_cast<int32_t>(holder.tokens.size() / 2 - hit.pages.size());
      if (needed + hit.idle > pool.available()) continue;
      for (size_t i = 0; i < hit.pages.size(); ++i) {
        const std::vector<int32_t> prefix(holder.tokens.begin(), holder.tokens.begin() + 2 * (i + 1));
        ASSERT_EQ(content[hit.pages[i]], prefix);
      }
      hits += static_cast<int64_t>(hit.pages.size());
      pool.Acquire(hit.pages);
      holder.pages = hit.pages;
      for (int32_t i = 0; i < needed; ++i) holder.pages.push_back(pool.Allocate());
      for (size_t i = hit.pages.size(); i < holder.pages.size(); ++i) {
        content[holder.pages[i]].assign(holder.tokens.begin(), holder.tokens.begin() + 2 * (i + 1));
        pool.Publish(holder.tokens, holder.pages, static_cast<int32_t>(i));
      }
      holders.push_back(std::move(holder));
    }
    std::vector<absl::Span<const int32_t>> tables;
    for (const Holder& holder : holders) tables.emplace_back(holder.pages);
    pool.CheckAgainst(tables);
  }
  EXPECT_GT(hits, 500);
}

TEST(PagePoolDeathTest, MisuseAborts) {
  PagePool pool(1, 1, true);
  EXPECT_DEATH(pool.Release({0}), "without being held");
  pool.Allocate();
  EXPECT_DEATH(pool.Allocate(), "no page");
}

}  // namespace
}  // namespace cohort::serving
