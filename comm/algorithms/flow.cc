#include "comm/algorithms/flow.h"

#include <algorithm>

#include "comm/algorithms/policy.h"

namespace cohort::comm::algorithms {

Flow::Spans::iterator Flow::Isolate(const Slice& slice) {
  Spans& spans = spans_[static_cast<int>(slice.buffer)];
  const size_t end = slice.offset + slice.count;
  const size_t known = spans.empty() ? 0 : std::prev(spans.end())->second.end;
  if (known < end) spans[known].end = end;
  const auto cut = [&](size_t at) {
    auto it = std::prev(spans.upper_bound(at));
    if (it->first == at || it->second.end == at) return;
    Span rest = it->second;
    it->second.end = at;
    spans.emplace_hint(std::next(it), at, std::move(rest));
  };
  cut(slice.offset);
  cut(end);
  return spans.find(slice.offset);
}

void Flow::Await(const Slice& slice, bool writes) {
  Spans& spans = spans_[static_cast<int>(slice.buffer)];
  for (auto it = Isolate(slice); it != spans.end() && it->first < slice.offset + slice.count; ++it) {
    const Span& span = it->second;
    if (writes && !span.readers.empty()) {  // they in turn wait for the writer
      after_.insert(after_.end(), span.readers.begin(), span.readers.end());
    } else if (span.writer != kNoStep) {
      after_.push_back(span.writer);
    }
  }
}

void Flow::Note(const Slice& slice, bool writes, StepId step) {
  Spans& spans = spans_[static_cast<int>(slice.buffer)];
  auto it = Isolate(slice);
  const size_t end = slice.offset + slice.count;
  if (!writes) {
    for (; it != spans.end() && it->first < end; ++it) it->second.readers.push_back(step);
    return;
  }
  it->second = {end, step, {}};
  for (++it; it != spans.end() && it->first < end;) it = spans.erase(it);
}

void Flow::Enter(int stage) {
  constexpr size_t kAhead = policy::kPiecesInStage;
  if (last_received_ != kNoStep) received_[stage_].push_back(last_received_);
  last_received_ = kNoStep;
  stage_ = stage;
  const std::vector<StepId>& before = received_[stage];
  held_by_ = before.size() < kAhead ? kNoStep : before[before.size() - kAhead];
}

absl::Span<const StepId> Flow::After() {
  if (held_by_ != kNoStep) after_.push_back(held_by_);
  std::sort(after_.begin(), after_.end());
  after_.erase(std::unique(after_.begin(), after_.end()), after_.end());
  return after_;
}

StepId Flow::Send(int peer, Slice source, StepId after) {
  if (source.count == 0) return after;
  after_.clear();
  if (after != kNoStep) after_.push_back(after);
  Await(source, false);
  const StepId step = builder_.Send(peer, next_send_[peer]++, source, After());
  Note(source, false, step);
  return step;
}

void Flow::Recv(int peer, Slice destination) {
  if (destination.count == 0) return;
  after_.clear();
  Await(destination, true);
  last_received_ = builder_.Recv(peer, next_recv_[peer]++, destination, After());
  Note(destination, true, last_received_);
}

void Flow::RecvReduce(int peer, Slice source, Slice destination) {
  if (destination.count == 0) return;
  after_.clear();
  Await(source, false);
  Await(destination, true);
  const StepId step = builder_.RecvReduce(peer, next_recv_[peer]++, source, destination, After());
  last_received_ = step;
  if (!(source == destination)) Note(source, false, step);
  Note(destination, true, step);
}

void Flow::Copy(Slice source, Slice destination) {
  if (destination.count == 0 || source == destination) return;
  after_.clear();
  Await(source, false);
  Await(destination, true);
  const StepId step = builder_.Copy(source, destination, After());
  Note(source, false, step);
  Note(destination, true, step);
}

void Flow::Reduce(Slice source, Slice destination) {
  if (destination.count == 0) return;
  after_.clear();
  Await(source, false);
  Await(destination, true);
  const StepId step = builder_.Reduce(source, destination, After());
  Note(source, false, step);
  Note(destination, true, step);
}

}  // namespace cohort::comm::algorithms
