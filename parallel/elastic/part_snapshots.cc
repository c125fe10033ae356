#include "parallel/elastic/part_snapshots.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "parallel/elastic/elastic_mesh.h"
#include "parallel/elastic/policy.h"
#include "parallel/global_sums.h"
#include "parallel/reshard/training_layout.h"
#include "runtime/elastic/snapshot/segment.h"
#include "runtime/metrics/chrome_trace.h"

namespace cohort::parallel {
namespace {

namespace elastic = runtime::elastic;

constexpr char kCounts[] = "elastic/counts";

// Whose segment it is; -1: nobody's that we know.
int MemberOf(const elastic::SegmentEntry& entry) {
  int member = -1;
  return absl::SimpleAtoi(entry.owner.member, &member) ? member : -1;
}

}  // namespace

PartSnapshots::PartSnapshots(elastic::KeeperOptions keeper, int64_t every, ParityOptions parity)
    : options_(std::move(keeper)), every_(every), parity_options_(parity) {}
PartSnapshots::~PartSnapshots() = default;

absl::Status PartSnapshots::Connect() {
  if (keeper_ != nullptr) return keeper_->Alive() ? absl::OkStatus() : keeper_->Reconnect();
  COHORT_ASSIGN_OR_RETURN(keeper_, elastic::Keeper::Connect(options_));
  return absl::OkStatus();
}

absl::Status PartSnapshots::Follow(ElasticPart& part, int member, const ElasticCounts& counts) {
  mapped_.clear();
  recovered_.clear();
  if (snapshotter_ != nullptr) {
    // What it copies of the part before may be gone soon.
    (void)snapshotter_->Finish(absl::Now() + elastic_policy::kSnapshotTimeout);
    if (parity_ != nullptr) (void)parity_->Finish();
    before_ = std::move(snapshotter_);
    parity_before_ = std::move(parity_);
  }
  begun_ = -1;
  first_ = true;
  epoch_ = part.mesh.epoch();
  step_ = counts.step;
  problem_ = absl::OkStatus();
  if (every_ == 0 || part.spare()) return absl::OkStatus();
  problem_ = Start(part, member, counts);
  if (parity_options_.lost_hosts == 0) return absl::OkStatus();
  COHORT_RETURN_IF_ERROR(AgreeOnSuccess(*part.group, problem_, "making a snapshot"));
  COHORT_ASSIGN_OR_RETURN(parity_, PartParity::Create(*keeper_, snapshotter_->owner(), *part.group,
                                                      snapshotter_->image_bytes(), parity_options_));
  return absl::OkStatus();
}

absl::Status PartSnapshots::Start(ElasticPart& part, int member, const ElasticCounts& counts) {
  COHORT_RETURN_IF_ERROR(Connect());
  std::vector<elastic::StatePiece> pieces = {{kCounts, &counts_, sizeof(counts_)}};
  const HeldState held = HeldBy(*part.model, part.optimizer);
  for (size_t i = 0; i < held.pieces.size(); ++i) {
    pieces.push_back(
        {held.pieces[i].piece.name, held.memory[i], static_cast<size_t>(held.pieces[i].bytes())});
  }
  COHORT_ASSIGN_OR_RETURN(snapshotter_,
                          elastic::Snapshotter::Create(
                              *keeper_, {std::to_string(member), part.mesh.epoch(), part.group->rank()},
                              std::move(pieces), {.layout = part.mesh.SerializeAsString(), .every = every_}));
  counts_ = {counts.tokens, counts.seconds};
  COHORT_RETURN_IF_ERROR(snapshotter_->Begin(counts.step));
  begun_ = counts.step;
  return absl::OkStatus();
}

absl::Status PartSnapshots::AfterGradients() {
  if (snapshotter_ == nullptr || begun_ < 0) return absl::OkStatus();
  const runtime::TraceScope trace("snapshot");
  COHORT_RETURN_IF_ERROR(snapshotter_->Finish(absl::Now() + elastic_policy::kSnapshotTimeout));
  if (parity_ == nullptr) return absl::OkStatus();
  if (!parity_->begun()) {
    COHORT_ASSIGN_OR_RETURN(const elastic::Image image, snapshotter_->ImageOf(begun_));
    parity_->Begin({epoch_, begun_}, image.bytes);
  }
  // Its time is until the next generation begins.
  return snapshotter_->Due(step_ + 1) ? parity_->Finish() : absl::OkStatus();
}

void PartSnapshots::BeforeUpdate() {
  // With parity a generation counts when all ranks have waited for that too.
  if (snapshotter_ == nullptr || begun_ < 0 || (parity_ != nullptr && parity_->begun())) return;
  if (parity_ != nullptr) parity_->Complete({epoch_, begun_});
  snapshotter_->Complete(std::exchange(begun_, -1));
  // Every rank's first generation of this mesh is whole.
  if (std::exchange(first_, false)) ForgetSuperseded();
}

void PartSnapshots::AfterUpdate(const ElasticCounts& counts) {
  step_ = counts.step;
  if (snapshotter_ == nullptr || !snapshotter_->Due(counts.step)) return;
  const runtime::TraceScope trace("snapshot");
  counts_ = {counts.tokens, counts.seconds};
  const absl::Status begun = snapshotter_->Begin(counts.step);
  if (begun.ok()) {
    begun_ = counts.step;
  } else {
    problem_ = begun;
  }
}

void PartSnapshots::ForgetSuperseded() {
  if (before_ != nullptr) (void)before_->Drop();
  before_.reset();
  if (parity_before_ != nullptr) parity_before_->Drop();
  parity_before_.reset();
  if (!cleans_ || keeper_ == nullptr) return;
  const auto entries = keeper_->List();
  if (!entries.ok()) return;
  for (const elastic::SegmentEntry& entry : *entries) {
    const bool gone = std::find(alive_.begin(), alive_.end(), MemberOf(entry)) == alive_.end();
    if (gone && entry.owner.epoch < epoch_) (void)keeper_->Release(entry.id);
  }
}

absl::StatusOr<KeptState> PartSnapshots::StateOf(const elastic::Image& image, int mesh_rank) const {
  KeptState state;
  const elastic::Image::Piece* counts = image.Find(kCounts);
  Counts numbers;
  if (counts == nullptr || counts->data.size() != sizeof(numbers) ||
      !state.mesh.ParseFromString(image.layout)) {
    return absl::DataLossError("a snapshot that is none of a training");
  }
  COHORT_RETURN_IF_ERROR(elastic::VerifyImage(image));
  std::memcpy(&numbers, counts->data.data(), sizeof(numbers));
  state.offer.set_epoch(static_cast<uint32_t>(image.name.epoch));
  state.offer.set_mesh_rank(mesh_rank);
  state.offer.set_step(image.name.step);
  state.offer.set_tokens(numbers.tokens);
  state.offer.set_seconds(numbers.seconds);
  for (const elastic::Image::Piece& piece : image.pieces) {
    if (piece.name != kCounts) state.pieces.push_back(piece.data.data());
  }
  return state;
}

absl::Status PartSnapshots::Recover(comm::Communicator& world) {
  recovered_.clear();
  if (every_ == 0 || parity_options_.lost_hosts == 0) return absl::OkStatus();
  problem_ = Connect();
  absl::Status problem;
  COHORT_ASSIGN_OR_RETURN(recovered_,
                          RecoverLostImages(world, problem_.ok() ? keeper_.get() : nullptr, &problem));
  problem_.Update(problem);
  return absl::OkStatus();
}

std::vector<KeptState> PartSnapshots::Kept(const comm::Communicator& world) {
  std::vector<KeptState> kept;
  mapped_.clear();
  alive_ = world.members();
  const comm::Topology& topology = world.topology();
  std::vector<int> locals;
  for (int rank = 0; rank < world.size(); ++rank) {
    if (topology.host_of(rank) == topology.host_of(world.rank())) locals.push_back(rank);
  }
  const auto place =
      static_cast<size_t>(std::find(locals.begin(), locals.end(), world.rank()) - locals.begin());
  cleans_ = place == 0;
  if (every_ == 0) return kept;
  for (const RecoveredImage& recovered : recovered_) {
    const auto image = elastic::ReadImage(recovered.bytes);
    if (!image.ok()) continue;
    absl::StatusOr<KeptState> state = StateOf(*image, recovered.mesh_rank);
    if (state.ok()) kept.push_back(*std::move(state));
  }
  // A newcomer may be the only rank left of its host.
  if (!Connect().ok()) return kept;
  const auto entries = keeper_->List();
  if (!entries.ok()) return kept;
  size_t gone = 0;
  for (const elastic::SegmentEntry& entry : *entries) {
    const int member = MemberOf(entry);
    if (entry.kind != elastic::kSnapshotKind || member < 0) continue;
    const bool own = member == world.members()[static_cast<size_t>(world.rank())];
    if (!own && std::find(alive_.begin(), alive_.end(), member) != alive_.end()) continue;
    if (!own && gone++ % locals.size() != place) continue;
    auto segment = keeper_->Map(entry.id);
    if (!segment.ok()) continue;
    for (const elastic::StoredImage& stored : elastic::WholeImages(segment->bytes())) {
      absl::StatusOr<KeptState> state = StateOf(stored.image, entry.owner.rank);
      if (state.ok()) kept.push_back(*std::move(state));
    }
    mapped_.push_back(*std::move(segment));
  }
  return kept;
}

elastic::SnapshotCosts PartSnapshots::costs() const {
  return snapshotter_ != nullptr ? snapshotter_->costs() : elastic::SnapshotCosts();
}

void PartSnapshots::End() {
  parity_.reset();
  parity_before_.reset();
  snapshotter_.reset();
  before_.reset();
  if (keeper_ != nullptr) (void)keeper_->End();
  keeper_.reset();
}

}  // namespace cohort::parallel
