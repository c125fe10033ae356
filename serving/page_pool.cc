#include "serving/page_pool.h"

#include <algorithm>

#include "comm/check.h"

namespace cohort::serving {

PagePool::PagePool(int32_t pages, int32_t page_size, bool share_prefixes)
    : page_size_(page_size), share_prefixes_(share_prefixes), entries_(pages) {
  COHORT_CHECK(pages > 0 && page_size > 0, "%d pages of %d tokens", pages, page_size);
  for (int32_t page = pages - 1; page >= 0; --page) unused_.push_back(page);
}

int32_t PagePool::Allocate() {
  COHORT_CHECK(available() > 0, "no page of %d is available", pages());
  int32_t page;
  if (!unused_.empty()) {
    page = unused_.back();
    unused_.pop_back();
  } else {
    page = idle_.front();
    idle_.pop_front();
    Unpublish(page);
  }
  entries_[page].references = 1;
  return page;
}

void PagePool::Acquire(absl::Span<const int32_t> pages) {
  for (int32_t page : pages) {
    Entry& entry = entries_[page];
    if (entry.references++ > 0) continue;
    COHORT_CHECK(entry.published, "page %d is taken up again without being published", page);
    idle_.erase(entry.idle_place);
  }
}

void PagePool::Release(absl::Span<const int32_t> pages) {
  for (auto it = pages.rbegin(); it != pages.rend(); ++it) {
    Entry& entry = entries_[*it];
    COHORT_CHECK(entry.references > 0, "page %d is released without being held", *it);
    if (--entry.references > 0) continue;
    if (entry.published) {
      entry.idle_place = idle_.insert(idle_.end(), *it);
    } else {
      unused_.push_back(*it);
    }
  }
}

PrefixHit PagePool::Find(absl::Span<const int32_t> tokens, int32_t limit) const {
  PrefixHit hit;
  if (!share_prefixes_) return hit;
  uint64_t parent = 0;
  const size_t end = std::min<size_t>(tokens.size(), std::max(limit, 0));
  for (size_t begin = 0; begin + page_size_ <= end; begin += page_size_) {
    const int32_t page = FindChild(parent, tokens.subspan(begin, page_size_));
    if (page < 0) break;
    hit.pages.push_back(page);
    hit.idle += entries_[page].references == 0;
    parent = entries_[page].lineage;
  }
  return hit;
}

void PagePool::Publish(absl::Span<const int32_t> tokens, absl::Span<const int32_t> pages, int32_t index) {
  if (!share_prefixes_) return;
  Entry& entry = entries_[pages[index]];
  if (entry.published) return;
  // A page whose predecessor is not published (its content was published by another page first, say, and that
  // one is not this sequence's) cannot be reached from the start.
  uint64_t parent = 0;
  if (index > 0) {
    if (!entries_[pages[index - 1]].published) return;
    parent = entries_[pages[index - 1]].lineage;
  }
  const auto content = tokens.subspan(static_cast<size_t>(index) * page_size_, page_size_);
  if (FindChild(parent, content) >= 0) return;
  entry.published = true;
  entry.lineage = next_lineage_++;
  entry.parent = parent;
  entry.tokens.assign(content.begin(), content.end());
  entry.key = Key(parent, content);
  index_.emplace(entry.key, pages[index]);
}

uint64_t PagePool::Key(uint64_t parent, absl::Span<const int32_t> tokens) {
  uint64_t key = parent * 0x9E3779B97F4A7C15u + 1;
  for (int32_t token : tokens) key = (key ^ static_cast<uint32_t>(token)) * 0x100000001B3u + (key >> 32);
  return key;
}

int32_t PagePool::FindChild(uint64_t parent, absl::Span<const int32_t> tokens) const {
  const auto [begin, end] = index_.equal_range(Key(parent, tokens));
  for (auto it = begin; it != end; ++it) {
    const Entry& entry = entries_[it->second];
    if (entry.parent == parent && std::equal(tokens.begin(), tokens.end(), entry.tokens.begin())) {
      return it->second;
    }
  }
  return -1;
}

// Pages after this one in some sequence keep a parent that no longer exists: they cannot be found, and go in
// turn.
void PagePool::Unpublish(int32_t page) {
  Entry& entry = entries_[page];
  const auto [begin, end] = index_.equal_range(entry.key);
  for (auto it = begin; it != end; ++it) {
    if (it->second != page) continue;
    index_.erase(it);
    break;
  }
  entry.published = false;
  entry.lineage = entry.parent = 0;
  entry.tokens.clear();
}

void PagePool::CheckAgainst(const std::vector<absl::Span<const int32_t>>& tables) const {
  std::vector<int32_t> held(entries_.size(), 0);
  for (const auto& table : tables) {
    for (int32_t page : table) ++held[page];
  }
  int32_t free = 0;
  for (size_t page = 0; page < entries_.size(); ++page) {
    COHORT_CHECK(held[page] == entries_[page].references, "page %zu has %d references and %d holders", page,
                 entries_[page].references, held[page]);
    COHORT_CHECK(held[page] < 2 || entries_[page].published, "page %zu is shared and can still be written",
                 page);
    free += held[page] == 0;
  }
  COHORT_CHECK(free == available(), "%d pages without holders, %d available", free, available());
  size_t published = 0;
  for (const Entry& entry : entries_) published += entry.published;
  COHORT_CHECK(published == index_.size(), "%zu pages published, %zu in the index", published, index_.size());
}

}  // namespace cohort::serving
