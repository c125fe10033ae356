// Who holds which page of one rank's KV cache.
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "absl/types/span.h"

namespace cohort::serving {

// A prefix of some tokens that lies in the cache already, as whole pages.
struct PrefixHit {
  std::vector<int32_t> pages;
  int32_t idle = 0;  // of these, how many nobody holds: taking them makes as many fewer pages available
};

// Pages are counted references: several sequences may hold one that is full, because nobody writes to it any
// more. A full page can be published under the tokens it ends; when its last holder lets go it stays findable
// until its place is needed, longest idle first. A hit compares the tokens themselves, page by page from the
// start, so it is exact whatever the hashes are. Not thread-safe: the engine's thread owns it. Misuse aborts.
class PagePool {
 public:
  PagePool(int32_t pages, int32_t page_size, bool share_prefixes);

  int32_t pages() const { return static_cast<int32_t>(entries_.size()); }
  int32_t page_size() const { return page_size_; }
  // Pages that Allocate can hand out: never used, or idle.
  int32_t available() const { return static_cast<int32_t>(unused_.size() + idle_.size()); }
  int32_t references(int32_t page) const { return entries_[page].references; }

  // A page with one reference. Requires available() > 0.
  int32_t Allocate();
  // One more reference on each.
  void Acquire(absl::Span<const int32_t> pages);
  // One less on each. Pages without holders become idle if published, else unused; the last ones of a
  // sequence become available before its first, which more prompts begin with.
  void Release(absl::Span<const int32_t> pages);

  // The longest run of whole published pages that `tokens` begins with, at most `limit` tokens.
  PrefixHit Find(absl::Span<const int32_t> tokens, int32_t limit) const;
  // Makes page `index` of a sequence findable: `pages` are the sequence's pages, of which those up to `index`
  // are full, and `tokens` its tokens. Does nothing where another page with the same content is published
  // already.
  void Publish(absl::Span<const int32_t> tokens, absl::Span<const int32_t> pages, int32_t index);

  // Aborts unless the books balance, given the page tables of everybody who holds pages. For tests.
  void CheckAgainst(const std::vector<absl::Span<const int32_t>>& tables) const;

 private:
  struct Entry {
    int32_t references = 0;
    bool published = false;
    uint64_t key = 0;      // where it is in index_
    uint64_t lineage = 0;  // identity of this content in this place; 0: none. Never reused
    uint64_t parent = 0;   // the lineage of the page before it
    std::vector<int32_t> tokens;
    std::list<int32_t>::iterator idle_place;
  };

  static uint64_t Key(uint64_t parent, absl::Span<const int32_t> tokens);
  int32_t FindChild(uint64_t parent, absl::Span<const int32_t> tokens) const;  // -1: none
  void Unpublish(int32_t page);

  int32_t page_size_;
  bool share_prefixes_;
  uint64_t next_lineage_ = 1;
  std::vector<Entry> entries_;
  std::vector<int32_t> unused_;
  std::list<int32_t> idle_;  // longest idle first
  std::unordered_multimap<uint64_t, int32_t> index_;
};

}  // namespace cohort::serving
