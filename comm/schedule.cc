#include "comm/schedule.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/codec/policy.h"

namespace cohort::comm {

ScheduleBuilder::ScheduleBuilder(size_t input_count, size_t output_count) {
  schedule_.input_count = input_count;
  schedule_.output_count = output_count;
}

Slice ScheduleBuilder::Scratch(size_t count) {
  const Slice slice{Buffer::kScratch, schedule_.scratch_count, count};
  schedule_.scratch_count += count;
  return slice;
}

Slice ScheduleBuilder::Wire(size_t count) {
  const Slice slice{Buffer::kWire, schedule_.wire_count, count};
  schedule_.wire_count += (count + policy::kCodecBucket - 1) / policy::kCodecBucket * policy::kCodecBucket;
  return slice;
}

Slice ScheduleBuilder::Sums(size_t count) {
  const Slice slice{Buffer::kSums, schedule_.sums_count, count};
  schedule_.sums_count += count;
  return slice;
}

StepId ScheduleBuilder::Add(StepKind kind, int peer, uint32_t tag, Slice source, Slice destination,
                            absl::Span<const StepId> after) {
  Step step{kind, peer, tag, source, destination, static_cast<uint32_t>(schedule_.after.size()), 0};
  for (const StepId id : after) {
    if (id == kNoStep) continue;
    COHORT_CHECK(id >= 0 && id < static_cast<StepId>(schedule_.steps.size()), "a step depends on step %d",
                 id);
    schedule_.after.push_back(id);
    ++step.num_after;
  }
  schedule_.steps.push_back(step);
  if (kind == StepKind::kCopy || kind == StepKind::kReduce) schedule_.local_count += source.count;
  if (kind == StepKind::kCopy && destination.buffer == Buffer::kWire) {
    schedule_.encoded_count = std::max(schedule_.encoded_count, destination.offset + destination.count);
  }
  return static_cast<StepId>(schedule_.steps.size()) - 1;
}

StepId ScheduleBuilder::Send(int peer, uint32_t tag, Slice source, absl::Span<const StepId> after) {
  if (source.count == 0) return kNoStep;
  return Add(StepKind::kSend, peer, tag, source, {}, after);
}

StepId ScheduleBuilder::Recv(int peer, uint32_t tag, Slice destination, absl::Span<const StepId> after) {
  if (destination.count == 0) return kNoStep;
  return Add(StepKind::kRecv, peer, tag, {}, destination, after);
}

StepId ScheduleBuilder::RecvReduce(int peer, uint32_t tag, Slice source, Slice destination,
                                   absl::Span<const StepId> after) {
  if (destination.count == 0) return kNoStep;
  return Add(StepKind::kRecvReduce, peer, tag, source, destination, after);
}

StepId ScheduleBuilder::Copy(Slice source, Slice destination, absl::Span<const StepId> after) {
  if (destination.count == 0 || source == destination) return kNoStep;
  return Add(StepKind::kCopy, -1, 0, source, destination, after);
}

StepId ScheduleBuilder::Reduce(Slice source, Slice destination, absl::Span<const StepId> after) {
  if (destination.count == 0) return kNoStep;
  return Add(StepKind::kReduce, -1, 0, source, destination, after);
}

StepId ScheduleBuilder::Signal(int peer, uint32_t tag, absl::Span<const StepId> after) {
  return Add(StepKind::kSend, peer, tag, {}, {}, after);
}

StepId ScheduleBuilder::Await(int peer, uint32_t tag, absl::Span<const StepId> after) {
  return Add(StepKind::kRecv, peer, tag, {}, {}, after);
}

Schedule ScheduleBuilder::Build() && {
  const size_t num_steps = schedule_.steps.size();
  schedule_.first_before.assign(num_steps + 1, 0);
  for (const StepId id : schedule_.after) ++schedule_.first_before[id + 1];
  for (size_t i = 0; i < num_steps; ++i) schedule_.first_before[i + 1] += schedule_.first_before[i];
  schedule_.before.resize(schedule_.after.size());
  std::vector<uint32_t> next(schedule_.first_before.begin(), schedule_.first_before.end() - 1);
  for (size_t i = 0; i < num_steps; ++i) {
    for (const StepId id : schedule_.After(static_cast<StepId>(i))) {
      schedule_.before[next[id]++] = static_cast<StepId>(i);
    }
  }
  return std::move(schedule_);
}

namespace {

absl::Status CheckSlice(const Schedule& schedule, size_t step, const char* which, const Slice& slice) {
  const size_t limits[kNumBuffers] = {schedule.input_count, schedule.output_count, schedule.scratch_count,
                                      schedule.wire_count, schedule.sums_count};
  const size_t limit = limits[static_cast<size_t>(slice.buffer)];
  if (slice.offset > limit || slice.count > limit - slice.offset) {
    return absl::InternalError(absl::StrFormat("step %d: the %s [%d, +%d) leaves a buffer of %d elements",
                                               step, which, slice.offset, slice.count, limit));
  }
  if (slice.buffer == Buffer::kInput && which[0] == 'd' && slice.count > 0) {
    return absl::InternalError(absl::StrFormat("step %d writes to the input", step));
  }
  if (slice.buffer == Buffer::kWire && slice.offset % policy::kCodecBucket != 0) {
    return absl::InternalError(absl::StrFormat("step %d: the %s begins inside a codec's block", step, which));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Validate(const Schedule& schedule, int rank, int size) {
  std::set<std::tuple<bool, int, uint32_t>> seen;
  for (size_t i = 0; i < schedule.steps.size(); ++i) {
    const Step& step = schedule.steps[i];
    const bool sends = step.kind == StepKind::kSend;
    const bool receives = step.kind == StepKind::kRecv || step.kind == StepKind::kRecvReduce;
    if (sends || receives) {
      if (step.peer < 0 || step.peer >= size || step.peer == rank) {
        return absl::InternalError(
            absl::StrFormat("step %d: peer %d of rank %d of %d", i, step.peer, rank, size));
      }
      if (!seen.insert({sends, step.peer, step.tag}).second) {
        return absl::InternalError(
            absl::StrFormat("step %d: tag %d is used twice with rank %d", i, step.tag, step.peer));
      }
    }
    const bool reads = step.kind != StepKind::kRecv;
    const bool writes = step.kind != StepKind::kSend;
    if (reads) COHORT_RETURN_IF_ERROR(CheckSlice(schedule, i, "source", step.source));
    if (writes) COHORT_RETURN_IF_ERROR(CheckSlice(schedule, i, "destination", step.destination));
    if (reads && writes && step.source.count != step.destination.count) {
      return absl::InternalError(absl::StrFormat("step %d: source and destination differ in size", i));
    }
    const bool to_wire = writes && step.destination.buffer == Buffer::kWire && step.destination.count > 0;
    if (to_wire && (step.kind == StepKind::kReduce || step.kind == StepKind::kRecvReduce ||
                    (reads && step.source.buffer == Buffer::kWire))) {
      return absl::InternalError(
          absl::StrFormat("step %d: what is encoded can be copied from, but not added to", i));
    }
    for (const StepId id : schedule.After(static_cast<StepId>(i))) {
      if (id < 0 || static_cast<size_t>(id) >= i) {
        return absl::InternalError(absl::StrFormat("step %d depends on step %d", i, id));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort::comm
