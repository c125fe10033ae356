#include "comm/simulator.h"

#include <algorithm>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <queue>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/simulator_checks.h"

namespace cohort::comm {
namespace {

class Simulator {
 public:
  Simulator(absl::Span<const Collective> collectives, absl::Span<const Schedule> schedules,
            size_t element_bytes, const SimulatedMachine& machine)
      : collectives_(collectives), schedules_(schedules), element_bytes_(element_bytes), machine_(machine) {}

  absl::StatusOr<Simulation> Go() {
    const int size = static_cast<int>(schedules_.size());
    ranks_.resize(size);
    for (int rank = 0; rank < size; ++rank) {
      const absl::Status valid = Validate(schedules_[rank], rank, size);
      const absl::Status ordered = valid.ok() ? CheckOrder(schedules_[rank]) : valid;
      if (!ordered.ok()) return absl::InternalError(absl::StrCat("rank ", rank, ": ", ordered.message()));
      Rank& state = ranks_[rank];
      FillInputs(collectives_[rank], &state.contents);
      const size_t num_steps = schedules_[rank].steps.size();
      state.blocked_by.resize(num_steps);
      state.left = num_steps;
      state.heard.assign((size + 63) / 64, 0);
      state.heard[rank / 64] |= uint64_t{1} << (rank % 64);
      state.step_heard.assign(num_steps, state.heard);
      for (size_t i = 0; i < num_steps; ++i) state.blocked_by[i] = schedules_[rank].steps[i].num_after;
    }
    // All ranks begin at once, each in the order of its steps.
    bool more = true;
    for (size_t i = 0; more; ++i) {
      more = false;
      for (int rank = 0; rank < size; ++rank) {
        if (i >= schedules_[rank].steps.size()) continue;
        more = true;
        if (ranks_[rank].blocked_by[i] == 0) COHORT_RETURN_IF_ERROR(Start(rank, static_cast<StepId>(i), 0));
      }
    }
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      result_.seconds = std::max(result_.seconds, event.time);
      if (event.kind != EventKind::kLinkFree) {
        COHORT_RETURN_IF_ERROR(End(event));
        continue;
      }
      const auto [out, in] = Links(event.message);
      for (Link* link : {out, in}) {
        link->busy = false;
        freed_.push_back(link);
      }
      // All links that are free at this time, before any of them is given away.
      if (events_.empty() || events_.top().kind != EventKind::kLinkFree || events_.top().time > event.time) {
        Assign(event.time);
      }
    }
    for (int rank = 0; rank < size; ++rank) {
      if (ranks_[rank].left > 0) return Stuck();
      COHORT_RETURN_IF_ERROR(CheckOutput(collectives_, rank, ranks_[rank].contents));
      if (collectives_[rank].operation == Operation::kAllReduce) {
        const absl::Status same =
            CheckSameBits(ranks_[0].contents, ranks_[rank].contents, collectives_[rank].count);
        if (!same.ok()) return absl::InternalError(absl::StrCat("rank ", rank, ": ", same.message()));
      }
      if (collectives_[rank].operation == Operation::kBarrier) COHORT_RETURN_IF_ERROR(CheckHeard(rank));
    }
    return result_;
  }

 private:
  // Messages that wait for a link and could leave at once, of which this many of the first are looked at.
  static constexpr size_t kLookAhead = 64;
  struct Message {
    int from, to;
    StepId send, recv;
    int level, out, in;  // the ranks that keep its links
    uint64_t bytes, number;
    bool left = false;
    // What it carries, from when it has left on: its source may change then.
    std::vector<SymbolicBuffer::Run> content = {};
    std::vector<uint64_t> heard = {};
  };
  // Carries one message at a time, one way.
  struct Link {
    bool busy = false;
    std::list<std::shared_ptr<Message>>
        waiting;  // in the order of posting; some have left by their other link
  };
  struct Rank {
    SymbolicRank contents;
    std::vector<uint32_t> blocked_by;
    size_t left = 0;
    double local_free = 0;                          // copies and reductions are made one after the other
    Link out[2], in[2];                             // by level: local, remote
    std::vector<uint64_t> heard;                    // ranks whose coming is known here
    std::vector<std::vector<uint64_t>> step_heard;  // and when a step ends; barriers only
  };
  // Of what happens at one time, links are freed first.
  enum class EventKind : uint8_t { kLinkFree, kSent, kReceived, kLocal };
  struct Event {
    double time;
    uint64_t order;  // of creation: equal times stay reproducible
    EventKind kind;
    std::shared_ptr<Message> message = nullptr;
    int rank = -1;  // of a local step
    StepId step = kNoStep;
    bool operator<(const Event& other) const {
      if (time != other.time) return time > other.time;
      const bool frees = kind == EventKind::kLinkFree, other_frees = other.kind == EventKind::kLinkFree;
      return frees != other_frees ? other_frees : order > other.order;
    }
  };

  std::string Where(int rank, StepId step) const { return absl::StrFormat("rank %d, step %d", rank, step); }

  absl::Status Start(int rank, StepId id, double now) {
    const Step& step = schedules_[rank].steps[id];
    if (step.kind == StepKind::kCopy || step.kind == StepKind::kReduce) {
      const double bytes = static_cast<double>(step.source.count * element_bytes_);
      double& free = ranks_[rank].local_free;
      free = std::max(free, now) + bytes * machine_.local_seconds_per_byte;
      events_.push({free, order_++, EventKind::kLocal, nullptr, rank, id});
      return absl::OkStatus();
    }
    // The first of a pair waits here for the second: a send is not over before its receive is posted.
    const bool sends = step.kind == StepKind::kSend;
    const auto pair = sends ? std::tuple(rank, step.peer, step.tag) : std::tuple(step.peer, rank, step.tag);
    const auto [at, first] = posted_.try_emplace(pair, std::pair(rank, id));
    if (first) return absl::OkStatus();
    const auto [other_rank, other] = at->second;
    posted_.erase(at);
    const int from = sends ? rank : other_rank, to = sends ? other_rank : rank;
    const StepId send_id = sends ? id : other, recv_id = sends ? other : id;
    const size_t count = schedules_[from].steps[send_id].source.count;
    if (count != schedules_[to].steps[recv_id].destination.count) {
      return absl::InternalError(absl::StrFormat("%s sends %d elements, but %s expects %d",
                                                 Where(from, send_id), count, Where(to, recv_id),
                                                 schedules_[to].steps[recv_id].destination.count));
    }
    const int level = machine_.hosts == nullptr || machine_.hosts->SameHost(from, to) ? 0 : 1;
    const uint64_t bytes = count * element_bytes_;
    ++result_.messages;
    result_.bytes += bytes;
    if (level == 1) result_.remote_bytes += bytes;
    // A shared link is kept with the lowest rank of the host.
    const auto link = [&](int rank) {
      const bool shared = level == 1 && machine_.shared_link;
      return shared ? machine_.hosts->ranks_on(machine_.hosts->host_of(rank))[0] : rank;
    };
    const auto message = std::make_shared<Message>(
        Message{from, to, send_id, recv_id, level, link(from), link(to), bytes, result_.messages});
    const auto [out, in] = Links(message);
    if (out->busy || in->busy) {
      out->waiting.push_back(message);
      in->waiting.push_back(message);
    } else {
      Depart(message, now);
    }
    return absl::OkStatus();
  }

  std::pair<Link*, Link*> Links(const std::shared_ptr<Message>& message) {
    return {&ranks_[message->out].out[message->level], &ranks_[message->in].in[message->level]};
  }

  // A send is over when its last byte has left, its receive when that has come.
  void Depart(const std::shared_ptr<Message>& message, double now) {
    const LinkPrice& price = message->level == 0 ? machine_.local : machine_.remote;
    const double sent = now + static_cast<double>(message->bytes) * price.seconds_per_byte;
    const auto [out, in] = Links(message);
    out->busy = in->busy = true;
    events_.push({sent, order_++, EventKind::kLinkFree, message});
    events_.push({sent, order_++, EventKind::kSent, message});
    events_.push({sent + price.latency, order_++, EventKind::kReceived, message});
  }

  // What waits for links that are free now leaves in the order of posting, where its other link is free too.
  void Assign(double now) {
    std::vector<std::shared_ptr<Message>> candidates;
    for (Link* link : freed_) {
      size_t looked = 0;
      for (auto at = link->waiting.begin(); at != link->waiting.end() && looked < kLookAhead;) {
        if ((*at)->left) {
          at = link->waiting.erase(at);
        } else {
          candidates.push_back(*at++);
          ++looked;
        }
      }
    }
    freed_.clear();
    std::sort(candidates.begin(), candidates.end(),
              [](const auto& a, const auto& b) { return a->number < b->number; });
    for (const auto& message : candidates) {
      const auto [out, in] = Links(message);
      if (message->left || out->busy || in->busy) continue;
      message->left = true;
      Depart(message, now);
    }
  }

  absl::Status End(const Event& event) {
    if (event.kind == EventKind::kSent) {
      COHORT_RETURN_IF_ERROR(Take(*event.message));
      return StepOver(event.message->from, event.message->send, event.time);
    }
    if (event.kind == EventKind::kReceived) {
      COHORT_RETURN_IF_ERROR(Deliver(*event.message));
      return StepOver(event.message->to, event.message->recv, event.time);
    }
    const Step& step = schedules_[event.rank].steps[event.step];
    Rank& rank = ranks_[event.rank];
    COHORT_ASSIGN_OR_RETURN(auto runs, Read(event.rank, event.step, rank, step.source));
    if (step.kind == StepKind::kReduce) {
      COHORT_ASSIGN_OR_RETURN(const auto old, Read(event.rank, event.step, rank, step.destination));
      runs = Combine(old, runs);
    }
    rank.contents[step.destination.buffer].Write(step.destination.offset, std::move(runs));
    return StepOver(event.rank, event.step, event.time);
  }

  absl::Status Take(Message& message) {
    const Rank& from = ranks_[message.from];
    if (collectives_[message.from].operation == Operation::kBarrier) {
      message.heard = from.step_heard[message.send];
    }
    const Step& send = schedules_[message.from].steps[message.send];
    COHORT_ASSIGN_OR_RETURN(message.content, Read(message.from, message.send, from, send.source));
    return absl::OkStatus();
  }

  absl::Status Deliver(Message& message) {
    const Step& recv = schedules_[message.to].steps[message.recv];
    Rank& to = ranks_[message.to];
    for (size_t w = 0; w < message.heard.size(); ++w) {
      to.heard[w] |= (to.step_heard[message.recv][w] |= message.heard[w]);
    }
    std::vector<SymbolicBuffer::Run> runs = std::move(message.content);
    if (recv.kind == StepKind::kRecvReduce) {
      COHORT_ASSIGN_OR_RETURN(const auto own, Read(message.to, message.recv, to, recv.source));
      runs = Combine(own, runs);
    }
    to.contents[recv.destination.buffer].Write(recv.destination.offset, std::move(runs));
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<SymbolicBuffer::Run>> Read(int rank, StepId step, const Rank& state,
                                                        const Slice& slice) const {
    auto runs = state.contents[slice.buffer].Read(slice.offset, slice.count);
    if (runs.ok()) return runs;
    return absl::InternalError(absl::StrFormat("%s reads buffer %d: %s", Where(rank, step),
                                               static_cast<int>(slice.buffer), runs.status().message()));
  }

  absl::Status StepOver(int rank, StepId id, double now) {
    Rank& state = ranks_[rank];
    --state.left;
    for (const StepId next : schedules_[rank].Before(id)) {
      if (collectives_[rank].operation == Operation::kBarrier) {
        for (size_t w = 0; w < state.heard.size(); ++w) state.step_heard[next][w] |= state.step_heard[id][w];
      }
      if (--state.blocked_by[next] == 0) COHORT_RETURN_IF_ERROR(Start(rank, next, now));
    }
    return absl::OkStatus();
  }

  absl::Status Stuck() const {
    std::string text = "deadlock:";
    int listed = 0;
    for (const auto& [pair, waiting] : posted_) {
      if (++listed > 8) break;
      const auto [from, to, tag] = pair;
      absl::StrAppend(&text, " ", Where(waiting.first, waiting.second),
                      " waits for the other end of message ", from, "->", to, " tag ", tag, ";");
    }
    return absl::InternalError(text);
  }

  absl::Status CheckHeard(int rank) const {
    for (int other = 0; other < static_cast<int>(ranks_.size()); ++other) {
      if ((ranks_[rank].heard[other / 64] >> (other % 64) & 1) == 0) {
        return absl::InternalError(
            absl::StrFormat("rank %d leaves the barrier without word of rank %d", rank, other));
      }
    }
    return absl::OkStatus();
  }

  const absl::Span<const Collective> collectives_;
  const absl::Span<const Schedule> schedules_;
  const size_t element_bytes_;
  const SimulatedMachine& machine_;
  std::vector<Rank> ranks_;
  std::map<std::tuple<int, int, uint32_t>, std::pair<int, StepId>> posted_;  // by sender, receiver, tag
  std::priority_queue<Event> events_;
  std::vector<Link*> freed_;  // at the present time, and not yet looked at
  uint64_t order_ = 0;
  Simulation result_;
};

}  // namespace

absl::StatusOr<Simulation> Simulate(absl::Span<const Collective> collectives,
                                    absl::Span<const Schedule> schedules, size_t element_bytes,
                                    const SimulatedMachine& machine) {
  if (collectives.size() != schedules.size() || collectives.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d calls and %d schedules", collectives.size(), schedules.size()));
  }
  return Simulator(collectives, schedules, element_bytes, machine).Go();
}

std::vector<Collective> ForAllRanks(const Collective& collective) {
  std::vector<Collective> all(collective.size, collective);
  for (int rank = 0; rank < collective.size; ++rank) all[rank].rank = rank;
  return all;
}

}  // namespace cohort::comm
