#include "runtime/elastic/parity/exchange.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/elastic/parity/code.h"
#include "runtime/elastic/parity/pipeline.h"
#include "runtime/elastic/parity/policy.h"

namespace cohort::runtime::elastic {
namespace {

// What one rank does of one piece of one stripe.
struct EncodeStep {
  int stripe;
  uint64_t from;
  uint64_t bytes;
  std::vector<RankRange> sends;  // of its image, to who encodes
  int index = -1;                // of the parity that it keeps; 0: it encodes
};

std::vector<EncodeStep> EncodeSteps(const StripePlan& plan, int rank) {
  std::vector<EncodeStep> steps;
  for (size_t s = 0; s < plan.stripes.size(); ++s) {
    const Stripe& stripe = plan.stripes[s];
    const auto kept = std::find(stripe.parity.begin(), stripe.parity.end(), rank);
    const int index =
        kept == stripe.parity.end() ? -1 : static_cast<int>(std::distance(stripe.parity.begin(), kept));
    for (uint64_t from = 0; from < stripe.bytes; from += parity_policy::kPieceBytes) {
      EncodeStep step{
          static_cast<int>(s), from, std::min(parity_policy::kPieceBytes, stripe.bytes - from), {}, index};
      for (const Stripe::Block& block : stripe.data) {
        if (block.host != plan.host_of[rank] || block.bytes <= from) continue;
        for (const RankRange& range :
             RanksOf(plan, block.host, block.offset + from, std::min(step.bytes, block.bytes - from))) {
          if (range.rank == rank) step.sends.push_back(range);
        }
      }
      if (index >= 0 || !step.sends.empty()) steps.push_back(std::move(step));
    }
  }
  return steps;
}

const StripeRequest::Member* MemberOf(const StripePlan& plan, int rank) {
  if (rank >= plan.ranks() || plan.host_of[rank] < 0) return nullptr;
  for (const StripeRequest::Member& member : plan.request.hosts[plan.host_of[rank]].members) {
    if (member.rank == rank) return &member;
  }
  return nullptr;
}

class Encoding {
 public:
  Encoding(comm::Communicator& communicator, const StripePlan& plan, absl::Span<const std::byte> mine,
           absl::Span<std::byte> kept)
      : communicator_(communicator),
        plan_(plan),
        mine_(mine),
        kept_(kept),
        code_(plan.request.data, plan.request.parity),
        steps_(EncodeSteps(plan, communicator.rank())),
        kept_offset_(plan.stripes.size()) {
    for (const StripePlan::Kept& one : plan.kept[communicator.rank()]) kept_offset_[one.stripe] = one.offset;
  }

  absl::Status Run(absl::Time deadline) {
    return RunSteps(
        communicator_, steps_.size(), deadline, [this](size_t i, StepSlot& slot) { Start(steps_[i], slot); },
        [this](size_t i, StepSlot& slot) {
          if (steps_[i].index == 0) Encode(steps_[i], slot);
          return absl::OkStatus();
        });
  }

 private:
  std::byte* Kept(const EncodeStep& step) { return kept_.data() + kept_offset_[step.stripe] + step.from; }

  void Start(const EncodeStep& step, StepSlot& slot) {
    const Stripe& stripe = plan_.stripes[step.stripe];
    for (const RankRange& range : step.sends) {
      slot.arriving.push_back(communicator_.Send(mine_.data() + range.offset, range.bytes, DataType::kU8,
                                                 stripe.parity[0], parity_policy::kDataTag));
    }
    if (step.index == 0) {
      for (size_t i = 0; i < stripe.data.size(); ++i) {
        const Stripe::Block& block = stripe.data[i];
        if (block.bytes <= step.from) continue;
        const uint64_t there = std::min(step.bytes, block.bytes - step.from);
        for (const RankRange& range : RanksOf(plan_, block.host, block.offset + step.from, there)) {
          slot.arriving.push_back(communicator_.Recv(slot.Buffer(i) + range.range_offset, range.bytes,
                                                     DataType::kU8, range.rank, parity_policy::kDataTag));
        }
        std::memset(slot.Buffer(i) + there, 0, step.bytes - there);
      }
    } else if (step.index > 0) {
      slot.arriving.push_back(communicator_.Recv(Kept(step), step.bytes, DataType::kU8, stripe.parity[0],
                                                 parity_policy::kParityTag));
    }
  }

  void Encode(const EncodeStep& step, StepSlot& slot) {
    const Stripe& stripe = plan_.stripes[step.stripe];
    std::vector<const std::byte*> data(static_cast<size_t>(code_.data()), nullptr);
    for (size_t i = 0; i < stripe.data.size(); ++i) {
      if (stripe.data[i].bytes > step.from) data[i] = slot.Buffer(i);
    }
    std::vector<std::byte*> parity = {Kept(step)};
    for (size_t j = 1; j < stripe.parity.size(); ++j) parity.push_back(slot.Buffer(data.size() + j));
    code_.Encode(data, parity, step.bytes);
    for (size_t j = 1; j < stripe.parity.size(); ++j) {
      slot.leaving.push_back(communicator_.Send(parity[j], step.bytes, DataType::kU8, stripe.parity[j],
                                                parity_policy::kParityTag));
    }
  }

  comm::Communicator& communicator_;
  const StripePlan& plan_;
  absl::Span<const std::byte> mine_;
  absl::Span<std::byte> kept_;
  ReedSolomon code_;
  std::vector<EncodeStep> steps_;
  std::vector<uint64_t> kept_offset_;  // by stripe
};

}  // namespace

absl::StatusOr<StripeRequest> GatherStripeRequest(comm::Communicator& communicator, uint64_t image_bytes,
                                                  int data, int parity) {
  const auto ranks = static_cast<size_t>(communicator.size());
  std::vector<uint64_t> bytes(ranks);
  const std::vector<size_t> counts(ranks, sizeof(uint64_t));
  COHORT_RETURN_IF_ERROR(communicator.AllGather(&image_bytes, bytes.data(), counts, DataType::kU8).Wait());
  StripeRequest request;
  request.data = data;
  request.parity = parity;
  const comm::Topology& topology = communicator.topology();
  for (int h = 0; h < topology.num_hosts(); ++h) {
    StripeRequest::Host host;
    host.name = topology.host(h);
    for (const int rank : topology.ranks_on(h))
      host.members.push_back({rank, bytes[static_cast<size_t>(rank)]});
    request.hosts.push_back(std::move(host));
  }
  return request;
}

absl::Status EncodeParity(comm::Communicator& communicator, const StripePlan& plan,
                          absl::Span<const std::byte> mine, absl::Span<std::byte> kept, absl::Time deadline) {
  const int rank = communicator.rank();
  const StripeRequest::Member* member = MemberOf(plan, rank);
  if (member == nullptr || member->bytes != mine.size() || kept.size() < plan.KeptBytes(rank)) {
    const absl::Status status = absl::InvalidArgumentError(absl::StrCat(
        "parity: rank ", rank, " brings ", mine.size(), " bytes and room for ", kept.size(),
        ", the plan says ", member == nullptr ? 0 : member->bytes, " and ", plan.KeptBytes(rank)));
    communicator.Abort(status);
    return status;
  }
  return Encoding(communicator, plan, mine, kept).Run(deadline);
}

absl::StatusOr<std::map<int, std::vector<std::byte>>> RecoverImages(comm::Communicator& communicator,
                                                                    const StripePlan& plan,
                                                                    const RecoveryPlan& recovery,
                                                                    const RecoverySources& sources,
                                                                    absl::Time deadline) {
  const int me = communicator.rank();
  const ReedSolomon code(plan.request.data, plan.request.parity);
  std::map<int, std::vector<std::byte>> images;
  std::vector<const RecoveryStep*> steps;
  // Where a source that is here lies; null where this rank has not brought it.
  const auto here = [&](const RecoveryStep::Source& source) -> const std::byte* {
    const bool parity = source.symbol >= plan.request.data;
    const auto& from = parity ? sources.parity : sources.images;
    const auto at = from.find(source.rank);
    if (at == from.end() || source.offset + source.bytes > at->second.size()) return nullptr;
    return at->second.data() + source.offset;
  };
  for (const RecoveryStep& step : recovery.steps) {
    bool part = step.target == me;
    for (const RecoveryStep::Source& source : step.sources) {
      if (source.at != me) continue;
      part = true;
      if (here(source) != nullptr) continue;
      const absl::Status status = absl::FailedPreconditionError(absl::StrCat(
          "parity: rank ", me, " is to have the ", source.symbol >= plan.request.data ? "parity" : "image",
          " of former rank ", source.rank, ", and has not, or not all of it"));
      communicator.Abort(status);
      return status;
    }
    if (part) steps.push_back(&step);
    if (step.target == me && images.count(step.lost_rank) == 0) {
      images[step.lost_rank].resize(MemberOf(plan, step.lost_rank)->bytes);
    }
  }
  const auto start = [&](size_t i, StepSlot& slot) {
    const RecoveryStep& step = *steps[i];
    for (size_t j = 0; j < step.sources.size(); ++j) {
      const RecoveryStep::Source& source = step.sources[j];
      if (source.at < 0 || (source.at == me) == (step.target == me)) continue;
      slot.arriving.push_back(source.at == me ? communicator.Send(here(source), source.bytes, DataType::kU8,
                                                                  step.target, parity_policy::kRecoveryTag)
                                              : communicator.Recv(slot.Buffer(j), source.bytes, DataType::kU8,
                                                                  source.at, parity_policy::kRecoveryTag));
    }
  };
  const auto finish = [&](size_t i, StepSlot& slot) -> absl::Status {
    const RecoveryStep& step = *steps[i];
    if (step.target != me) return absl::OkStatus();
    std::vector<int> symbols;
    std::vector<const std::byte*> blocks;
    for (size_t j = 0; j < step.sources.size(); ++j) {
      const RecoveryStep::Source& source = step.sources[j];
      symbols.push_back(source.symbol);
      blocks.push_back(source.at < 0 ? nullptr : source.at == me ? here(source) : slot.Buffer(j));
    }
    return code.Solve(symbols, blocks, step.lost_symbol, images.at(step.lost_rank).data() + step.image_offset,
                      step.bytes);
  };
  COHORT_RETURN_IF_ERROR(RunSteps(communicator, steps.size(), deadline, start, finish));
  return images;
}

}  // namespace cohort::runtime::elastic
