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

PartSnapshots::PartSnapshots(elastic::KeeperOptions keeper, PartSnapshotsOptions options)
    : keeper_options_(std::move(keeper)), options_(options) {}
PartSnapshots::~PartSnapshots() = default;

absl::Status PartSnapshots::Connect() {
  if (keeper_ != nullptr) return keeper_->Alive() ? absl::OkStatus() : keeper_->Reconnect();
  COHORT_ASSIGN_OR_RETURN(keeper_, elastic::Keeper::Connect(keeper_options_));
  return absl::OkStatus();
}

// The images are this process's memory, and those of the living ranks of the host come together again at another keeper.
// What it held of dead ones is gone with it.
void PartSnapshots::KeepKeeper() {
  if (keeper_ == nullptr || keeper_->Alive() || absl::Now() < keeper_again_) return;
  const absl::Status back = keeper_->Reconnect();
  if (!back.ok()) keeper_again_ = absl::Now() + elastic_policy::kKeeperRetry;
  if (!cleans_) return;
  keeper_news_ = absl::StrCat("the keeper of this host's snapshots was lost: ",
                              back.ok() ? "another one has them" : std::string(back.message()));
}

absl::Status PartSnapshots::Follow(ElasticPart& part, int member, const ElasticCounts& counts) {
  mapped_.clear();
  recovered_.clear();
  GiveUpSave();
  if (snapshotter_ != nullptr) {
    // What it copies of the part before may be gone soon.
    (void)snapshotter_->Finish(absl::Now() + elastic_policy::kSnapshotTimeout);
    if (parity_ != nullptr) (void)parity_->Finish();
    before_ = std::move(snapshotter_);
    parity_before_ = std::move(parity_);
  }
  copying_ = encoding_ = -1;
  first_ = true;
  spare_steps_ = 0;
  epoch_ = part.mesh.epoch();
  problem_ = absl::OkStatus();
  if (options_.every == 0 || part.spare()) return absl::OkStatus();
  problem_ = Start(part, member, counts);
  if (options_.parity.lost_hosts > 0) {
    COHORT_RETURN_IF_ERROR(AgreeOnSuccess(*part.group, problem_, "making a snapshot"));
    COHORT_ASSIGN_OR_RETURN(parity_, PartParity::Create(*keeper_, snapshotter_->owner(), *part.group,
                                                        snapshotter_->image_bytes(), options_.parity));
  }
  if (!options_.saves) return absl::OkStatus();
  // Where one rank keeps nothing, all save while they wait.
  int64_t without = problem_.ok() ? 0 : 1;
  COHORT_RETURN_IF_ERROR(
      part.group->AllReduce(&without, &without, 1, DataType::kI64, comm::ReduceOp::kMax).Wait());
  if (without > 0) return absl::OkStatus();
  COHORT_ASSIGN_OR_RETURN(save_, BackgroundSave::Create(*part.group, absl::StrCat("e", epoch_)));
  return absl::OkStatus();
}

absl::Status PartSnapshots::Start(ElasticPart& part, int member, const ElasticCounts& counts) {
  COHORT_RETURN_IF_ERROR(Connect());
  std::vector<elastic::StatePiece> pieces = {{kCounts, &counts_, sizeof(counts_)}};
  const HeldState held = HeldBy(*part.model, part.optimizer);
  runtime::Device* device = nullptr;  // the part's, if its memory is not the host's
  for (size_t i = 0; i < held.pieces.size(); ++i) {
    const bool on_device = !held.devices[i]->in_host_memory();
    if (on_device) device = held.devices[i];
    pieces.push_back(
        {held.pieces[i].piece.name, held.memory[i], static_cast<size_t>(held.pieces[i].bytes()), on_device});
  }
  const int slots = 2 + (options_.parity.lost_hosts > 0 ? 1 : 0) + (options_.saves ? 1 : 0);
  COHORT_ASSIGN_OR_RETURN(
      snapshotter_,
      elastic::Snapshotter::Create(*keeper_, {std::to_string(member), part.mesh.epoch(), part.group->rank()},
                                   std::move(pieces),
                                   {.layout = part.mesh.SerializeAsString(),
                                    .every = options_.every,
                                    .slots = slots,
                                    .device = device}));
  return Begin(counts);
}

absl::Status PartSnapshots::Begin(const ElasticCounts& counts) {
  counts_ = {counts.tokens, counts.seconds};
  COHORT_RETURN_IF_ERROR(snapshotter_->Begin(counts.step));
  copying_ = counts.step;
  return absl::OkStatus();
}

absl::Status PartSnapshots::AfterGradients() {
  if (copying_ < 0) return absl::OkStatus();
  const runtime::TraceScope trace("snapshot");
  COHORT_RETURN_IF_ERROR(snapshotter_->Finish(absl::Now() + elastic_policy::kSnapshotTimeout));
  // The generation before had until now.
  return encoding_ < 0 ? absl::OkStatus() : parity_->Finish();
}

void PartSnapshots::BeforeUpdate() {
  if (copying_ < 0) return;
  // All ranks have come to here: they have finished what AfterGradients waits for.
  const int64_t copied = std::exchange(copying_, -1);
  int64_t complete = copied;
  if (parity_ != nullptr) {
    complete = std::exchange(encoding_, copied);
    if (complete >= 0) parity_->Complete({epoch_, complete});
    const auto image = snapshotter_->ImageOf(copied);
    COHORT_CHECK(image.ok(), "%s", std::string(image.status().message()).c_str());
    parity_->Begin({epoch_, copied}, image->bytes);
  }
  if (saving_ == copied) StartSave();
  if (complete < 0) return;
  snapshotter_->Complete(complete);
  // Every rank's first generation of this mesh is whole.
  if (std::exchange(first_, false)) ForgetSuperseded();
}

void PartSnapshots::AfterUpdate(const ElasticCounts& counts) {
  if (snapshotter_ == nullptr) return;
  KeepKeeper();
  // What they read may be free now.
  if (save_ != nullptr) {
    if (auto outcome = save_->Take(/*wait=*/false)) FinishSave(*std::move(outcome));
  }
  if (given_up_ != nullptr && given_up_->Take(/*wait=*/false)) {
    given_up_.reset();
    read_.reset();
  }
  if (!snapshotter_->Due(counts.step)) return;
  const runtime::TraceScope trace("snapshot");
  problem_.Update(Begin(counts));
}

void PartSnapshots::AfterSpareStep() {
  if (options_.every == 0 || !first_) return;
  // The others' first generation is complete when the one after it is copied.
  if (++spare_steps_ <= options_.every + 2) return;
  first_ = false;
  ForgetSuperseded();
}

void PartSnapshots::Save(ElasticPart& part, const ElasticCounts& counts, WriteCheckpoint write) {
  COHORT_CHECK(save_ != nullptr && saving_ < 0, "no checkpoint can be written now");
  saving_ = counts.step;
  saved_part_ = &part;
  write_ = std::move(write);
  const absl::Status begun = copying_ == counts.step ? absl::OkStatus() : Begin(counts);
  if (begun.ok()) return;
  // The others hear it.
  save_->Cancel(begun);
  FinishSave({counts.step, begun, 0});
}

void PartSnapshots::StartSave() {
  const auto image = snapshotter_->Pin(saving_);
  COHORT_CHECK(image.ok(), "%s", std::string(image.status().message()).c_str());
  pinned_ = true;
  // Behind the counts.
  save_->Start(saving_, WrittenFrom(*image, 1, *saved_part_->model), std::move(write_));
}

void PartSnapshots::FinishSave(BackgroundSave::Outcome outcome) {
  saved_ = std::move(outcome);
  if (std::exchange(pinned_, false)) snapshotter_->Unpin(saving_);
  saving_ = -1;
}

// The files of a mesh that is no more. What is in the middle of a write is left to end by itself: nobody waits for a disk.
void PartSnapshots::GiveUpSave() {
  const auto why = absl::AbortedError("the ranks changed while the checkpoint was written");
  if (save_ != nullptr && save_->under_way()) save_->Cancel(why);
  if (save_ != nullptr) {
    if (auto outcome = save_->Take(/*wait=*/false)) FinishSave(*std::move(outcome));
  }
  if (saving_ >= 0) saved_ = {std::exchange(saving_, -1), why, 0};
  pinned_ = false;
  if (save_ != nullptr && save_->under_way()) {
    given_up_ = std::move(save_);  // one that was given up before is waited for
    read_ = snapshotter_;
  }
  save_.reset();
}

std::optional<BackgroundSave::Outcome> PartSnapshots::Saved(bool wait) {
  if (save_ != nullptr) {
    if (auto outcome = save_->Take(wait)) FinishSave(*std::move(outcome));
  }
  return std::exchange(saved_, std::nullopt);
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

absl::StatusOr<std::string> PartSnapshots::Recover(comm::Communicator& world) {
  recovered_.clear();
  if (options_.every == 0 || options_.parity.lost_hosts == 0) return "";
  problem_ = Connect();
  absl::Status problem;
  COHORT_ASSIGN_OR_RETURN(recovered_,
                          RecoverLostImages(world, problem_.ok() ? keeper_.get() : nullptr, &problem));
  return std::string(problem.message());
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
  if (options_.every == 0) return kept;
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
  elastic::GenerationName complete;
  if (snapshotter_ != nullptr && snapshotter_->complete()) complete = {epoch_, *snapshotter_->complete()};
  for (const elastic::SegmentEntry& entry : *entries) {
    const int member = MemberOf(entry);
    if (entry.kind != elastic::kSnapshotKind || member < 0) continue;
    const bool own = member == world.members()[static_cast<size_t>(world.rank())];
    if (!own && std::find(alive_.begin(), alive_.end(), member) != alive_.end()) continue;
    if (!own && gone++ % locals.size() != place) continue;
    auto segment = keeper_->Map(entry.id);
    if (!segment.ok()) continue;
    for (const elastic::StoredImage& stored : elastic::WholeImages(segment->bytes())) {
      // Where a later one is complete nobody asks for it.
      if (stored.image.name < complete) continue;
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
  save_.reset();
  given_up_.reset();
  read_.reset();
  parity_.reset();
  parity_before_.reset();
  snapshotter_.reset();
  before_.reset();
  if (keeper_ != nullptr) (void)keeper_->End();
  keeper_.reset();
}

}  // namespace cohort::parallel
