#include "comm/symbolic.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace cohort::comm {
namespace {

using Run = SymbolicBuffer::Run;

// Part of a run, from `from` elements into it.
Run Cut(const Run& run, size_t from, size_t count) {
  return {run.offset + from, count, run.terms, run.shift + from, run.order};
}

uint64_t Mix(uint64_t x) {  // the finalizer of splitmix64
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

}  // namespace

Terms Run::At() const {
  Terms shifted = *terms;
  for (Term& term : shifted) term.origin += shift;
  return shifted;
}

void SymbolicBuffer::Define(size_t offset, size_t count, Terms terms) {
  if (count == 0) return;
  const uint64_t order = Mix(static_cast<uint64_t>(terms.front().rank) + 1);
  Write(offset, {{0, count, std::make_shared<const Terms>(std::move(terms)), 0, order}});
}

void SymbolicBuffer::Write(size_t offset, std::vector<Run> runs) {
  if (runs.empty()) return;
  const size_t end = offset + runs.back().offset + runs.back().count;
  auto it = runs_.upper_bound(offset);
  if (it != runs_.begin()) --it;
  while (it != runs_.end() && it->first < end) {
    const Run old = it->second;
    const size_t old_end = old.offset + old.count;
    if (old_end <= offset) {
      ++it;
      continue;
    }
    it = runs_.erase(it);
    if (old.offset < offset) runs_[old.offset] = Cut(old, 0, offset - old.offset);
    if (old_end > end) runs_[end] = Cut(old, end - old.offset, old_end - end);
  }
  for (Run& run : runs) {
    run.offset += offset;
    runs_[run.offset] = run;
  }
}

absl::StatusOr<std::vector<Run>> SymbolicBuffer::Read(size_t offset, size_t count) const {
  std::vector<Run> result;
  size_t at = offset;
  const size_t end = offset + count;
  auto it = runs_.upper_bound(offset);
  if (it != runs_.begin()) --it;
  for (; it != runs_.end() && it->first < end; ++it) {
    const Run& run = it->second;
    const size_t run_end = run.offset + run.count;
    if (run_end <= at) continue;
    if (run.offset > at) break;
    Run part = Cut(run, at - run.offset, std::min(run_end, end) - at);
    part.offset = at - offset;
    at += part.count;
    result.push_back(std::move(part));
  }
  if (at < end) return absl::InternalError(absl::StrFormat("element %d was never written", at));
  return result;
}

std::vector<Run> Combine(const std::vector<Run>& a, const std::vector<Run>& b) {
  std::vector<Run> result;
  size_t i = 0, j = 0, at = 0;
  while (i < a.size() && j < b.size()) {
    const size_t end = std::min(a[i].offset + a[i].count, b[j].offset + b[j].count);
    const Terms left = Cut(a[i], at - a[i].offset, end - at).At();
    const Terms right = Cut(b[j], at - b[j].offset, end - at).At();
    Terms sum;
    auto x = left.begin();
    auto y = right.begin();
    const auto before = [](const Term& p, const Term& q) {
      return p.rank != q.rank ? p.rank < q.rank : p.origin < q.origin;
    };
    while (x != left.end() || y != right.end()) {
      if (y == right.end() || (x != left.end() && before(*x, *y))) {
        sum.push_back(*x++);
      } else if (x == left.end() || before(*y, *x)) {
        sum.push_back(*y++);
      } else {
        sum.push_back({x->rank, x->origin, x->times + y->times});
        ++x, ++y;
      }
    }
    result.push_back(
        {at, end - at, std::make_shared<const Terms>(std::move(sum)), 0, Mix(a[i].order + b[j].order)});
    at = end;
    if (a[i].offset + a[i].count == end) ++i;
    if (b[j].offset + b[j].count == end) ++j;
  }
  return result;
}

std::string Describe(const Terms& terms) {
  std::string text;
  for (const Term& term : terms) {
    absl::StrAppend(&text, text.empty() ? "" : " + ", term.times == 1 ? "" : absl::StrCat(term.times, "*"),
                    "r", term.rank, "[", term.origin, "]");
  }
  return text;
}

}  // namespace cohort::comm
