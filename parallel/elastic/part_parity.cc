#include "parallel/elastic/part_parity.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "parallel/elastic/policy.h"
#include "parallel/global_sums.h"
#include "runtime/elastic/parity/host_holdings.h"
#include "runtime/elastic/parity/recovery_plan.h"
#include "runtime/elastic/snapshot/segment.h"
#include "runtime/elastic/snapshot/snapshotter.h"

namespace cohort::parallel {
namespace {

namespace elastic = runtime::elastic;
using elastic::GenerationName;

// The generations of which this host has parity, and the stripes that they were encoded in, as lines.
std::string ParityHere(elastic::Keeper* keeper) {
  std::string lines;
  if (keeper == nullptr) return lines;
  const auto entries = keeper->List();
  if (!entries.ok()) return lines;
  for (const elastic::SegmentEntry& entry : *entries) {
    if (entry.kind != elastic::kParityKind) continue;
    const auto memory = keeper->Map(entry.id);
    if (!memory.ok()) continue;
    for (const elastic::StoredImage& stored : elastic::WholeImages(memory->bytes())) {
      absl::StrAppend(&lines, stored.image.name.epoch, " ", stored.image.name.step, " ",
                      absl::Base64Escape(stored.image.layout), "\n");
    }
  }
  return lines;
}

// Those of all ranks, the newest first.
std::map<GenerationName, std::string, std::greater<>> Generations(const std::vector<std::string>& texts) {
  std::map<GenerationName, std::string, std::greater<>> generations;
  for (const std::string& text : texts) {
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      const std::vector<std::string> fields = absl::StrSplit(line, ' ');
      GenerationName name;
      std::string layout;
      if (fields.size() != 3 || !absl::SimpleAtoi(fields[0], &name.epoch) ||
          !absl::SimpleAtoi(fields[1], &name.step) || !absl::Base64Unescape(fields[2], &layout)) {
        continue;
      }
      generations.emplace(name, std::move(layout));
    }
  }
  return generations;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PartParity>> PartParity::Create(elastic::Keeper& keeper,
                                                               const elastic::SegmentOwner& owner,
                                                               comm::Communicator& group,
                                                               uint64_t image_bytes,
                                                               const ParityOptions& options) {
  const int hosts = group.topology().num_hosts();
  const int data = std::min(options.data, hosts - options.lost_hosts);
  if (options.lost_hosts == 0 || data < 1) return nullptr;
  std::unique_ptr<PartParity> parity(new PartParity);
  COHORT_ASSIGN_OR_RETURN(parity->group_, group.Split(0, group.rank()));
  COHORT_ASSIGN_OR_RETURN(
      const elastic::StripeRequest request,
      elastic::GatherStripeRequest(*parity->group_, image_bytes, data, options.lost_hosts));
  COHORT_ASSIGN_OR_RETURN(parity->plan_, elastic::PlanStripes(request));
  auto store = elastic::ParityStore::Create(keeper, owner, parity->plan_, group.rank());
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(*parity->group_, store.status(), "making room for parity"));
  parity->store_ = *std::move(store);
  return parity;
}

PartParity::~PartParity() {
  if (encoding_.valid()) encoding_.wait();
}

void PartParity::Begin(GenerationName name, absl::Span<const std::byte> image) {
  encoding_ = std::async(std::launch::async, [this, name, image] {
    return store_->Encode(*group_, name, image, absl::Now() + elastic_policy::kParityTimeout);
  });
}

absl::Status PartParity::Finish() { return encoding_.valid() ? encoding_.get() : absl::OkStatus(); }

void PartParity::Drop() {
  if (encoding_.valid()) (void)encoding_.get();
  (void)store_->Drop();
}

absl::StatusOr<std::vector<RecoveredImage>> RecoverLostImages(comm::Communicator& world,
                                                              elastic::Keeper* keeper,
                                                              absl::Status* problem) {
  std::vector<RecoveredImage> recovered;
  COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> texts, GatherStrings(world, ParityHere(keeper)));
  for (const auto& [name, layout] : Generations(texts)) {
    COHORT_ASSIGN_OR_RETURN(const elastic::StripeRequest request, elastic::ParseStripeRequest(layout));
    COHORT_ASSIGN_OR_RETURN(const elastic::StripePlan plan, elastic::PlanStripes(request));
    absl::StatusOr<elastic::HostHoldings> holdings = elastic::HostHoldings();
    if (keeper != nullptr) holdings = elastic::FindHoldings(*keeper, name);
    if (!holdings.ok()) holdings = elastic::HostHoldings();  // a keeper that is gone has nothing
    COHORT_ASSIGN_OR_RETURN(const elastic::Survivors survivors,
                            elastic::AgreeSurvivors(world, plan, *holdings));
    const bool whole =
        std::all_of(survivors.image_at.begin(), survivors.image_at.end(), [](int at) { return at >= 0; });
    if (whole) return recovered;
    // The same on all ranks.
    const absl::StatusOr<elastic::RecoveryPlan> recovery = elastic::PlanRecovery(plan, survivors);
    if (!recovery.ok()) {
      if (problem->ok()) *problem = recovery.status();
      continue;
    }
    COHORT_ASSIGN_OR_RETURN(auto images,
                            elastic::RecoverImages(world, plan, *recovery, holdings->Sources(),
                                                   absl::Now() + elastic_policy::kParityTimeout));
    for (auto& [mesh_rank, bytes] : images) recovered.push_back({mesh_rank, std::move(bytes)});
    *problem = absl::OkStatus();
    return recovered;
  }
  return recovered;
}

}  // namespace cohort::parallel
