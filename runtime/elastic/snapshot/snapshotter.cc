#include "runtime/elastic/snapshot/snapshotter.h"

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/device/host_reader.h"
#include "runtime/elastic/snapshot/policy.h"
#include "runtime/elastic/snapshot/segment.h"
#include "runtime/elastic/snapshot/sum.h"

namespace cohort::runtime::elastic {
namespace {

double ThreadSeconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

struct Snapshotter::Impl {
  // A part of a piece that one thread copies at once.
  struct Chunk {
    const std::byte* from;
    uint64_t offset;  // in the image
    size_t bytes;
    bool on_device;
  };

  Keeper& keeper;
  SegmentOwner owner;
  SnapshotterOptions options;
  ImagePlan plan;
  std::vector<Chunk> chunks;
  std::vector<size_t> first_chunk;  // by piece, and the end
  Keeper::Created segment;
  SegmentWriter writer;
  Slots slots;                         // of the calling thread
  std::unique_ptr<HostReader> reader;  // null: all lies on the host

  // Of the generation that is being copied.
  GenerationName name;
  int slot = 0;
  absl::Span<std::byte> image;
  std::vector<uint64_t> sums;   // by chunk
  std::atomic<size_t> next{0};  // the chunk that nobody has taken yet
  bool stream = false;

  std::mutex lock;
  std::condition_variable changed;
  size_t copied = 0;   // chunks that are in place
  bool begun = false;  // there is something to copy
  bool over = false;   // the thread is to end
  SnapshotCosts costs;
  std::thread thread;

  Impl(Keeper& the_keeper, SegmentOwner the_owner, SnapshotterOptions the_options, ImagePlan the_plan,
       Keeper::Created created)
      : keeper(the_keeper),
        owner(std::move(the_owner)),
        options(std::move(the_options)),
        plan(std::move(the_plan)),
        segment(std::move(created)),
        writer(segment.memory.writable(), plan.bytes, options.slots),
        slots(options.slots) {}

  // Copies chunks until none is left that nobody has taken, or `deadline` has passed.
  void Copy(absl::Time deadline) {
    while (true) {
      if (deadline != absl::InfiniteFuture() && absl::Now() >= deadline) return;
      const size_t mine = next.fetch_add(1);
      if (mine >= chunks.size()) return;
      const Chunk& chunk = chunks[mine];
      const auto copy = [&](const void* from) {
        sums[mine] = CopyAndSum(image.data() + chunk.offset, from, chunk.bytes, stream);
      };
      if (chunk.on_device) {
        reader->Read(chunk.from, chunk.bytes, copy);
      } else {
        copy(chunk.from);
      }
      const std::lock_guard<std::mutex> guard(lock);
      costs.bytes += chunk.bytes;
      if (++copied == chunks.size()) changed.notify_all();
    }
  }

  // Has the system make the pages of the segment, which takes it several times as long as to fill them, before somebody
  // waits for that; nothing changes in them. A copy that begins goes first.
  void Populate() {
    const absl::Span<std::byte> memory = segment.memory.writable();
    for (size_t at = 0; at < memory.size(); at += snapshot_policy::kChunkBytes) {
      {
        std::unique_lock<std::mutex> guard(lock);
        if (over || (begun && next.load() < chunks.size())) return;
      }
      // A kernel before 5.14 has no such advice: then pages come with the first snapshots.
      if (madvise(memory.data() + at, std::min(snapshot_policy::kChunkBytes, memory.size() - at),
                  MADV_POPULATE_WRITE) != 0) {
        return;
      }
    }
  }

  void Background() {
    Populate();
    std::unique_lock<std::mutex> guard(lock);
    while (true) {
      changed.wait(guard, [this] { return over || (begun && next.load() < chunks.size()); });
      if (over) return;
      guard.unlock();
      const double before = ThreadSeconds();
      Copy(absl::InfiniteFuture());
      const double after = ThreadSeconds();
      guard.lock();
      costs.background_cpu += after - before;
    }
  }
};

Snapshotter::Snapshotter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<Snapshotter>> Snapshotter::Create(Keeper& keeper, const SegmentOwner& owner,
                                                                 std::vector<StatePiece> pieces,
                                                                 SnapshotterOptions options) {
  if (options.every < 1) return absl::InvalidArgumentError("snapshot: every 0 steps");
  std::vector<ImagePiece> named;
  for (const StatePiece& piece : pieces) named.push_back({piece.name, piece.bytes});
  ImagePlan plan = PlanImage(std::move(named), options.layout);
  COHORT_ASSIGN_OR_RETURN(Keeper::Created segment,
                          keeper.Create(owner, kSnapshotKind, SegmentBytes(plan.bytes, options.slots)));
  std::unique_ptr<HostReader> reader;
  if (options.device != nullptr) {
    COHORT_ASSIGN_OR_RETURN(reader, MakeHostReader(*options.device, snapshot_policy::kChunkBytes));
  }
  auto impl = std::make_unique<Impl>(keeper, owner, std::move(options), std::move(plan), std::move(segment));
  impl->reader = std::move(reader);
  for (size_t i = 0; i < pieces.size(); ++i) {
    impl->first_chunk.push_back(impl->chunks.size());
    for (size_t at = 0; at < pieces[i].bytes; at += snapshot_policy::kChunkBytes) {
      impl->chunks.push_back({static_cast<const std::byte*>(pieces[i].data) + at, impl->plan.offsets[i] + at,
                              std::min(snapshot_policy::kChunkBytes, pieces[i].bytes - at),
                              pieces[i].on_device});
    }
    COHORT_CHECK(!pieces[i].on_device || impl->reader != nullptr, "%s lies on no device",
                 pieces[i].name.c_str());
  }
  impl->first_chunk.push_back(impl->chunks.size());
  impl->sums.resize(impl->chunks.size());
  impl->stream = impl->plan.bytes > snapshot_policy::kStreamBytes;
  impl->thread = std::thread([state = impl.get()] { state->Background(); });
  return std::unique_ptr<Snapshotter>(new Snapshotter(std::move(impl)));
}

Snapshotter::~Snapshotter() {
  {
    const std::lock_guard<std::mutex> guard(impl_->lock);
    impl_->over = true;
    impl_->changed.notify_all();
  }
  // It ends after the chunks: the state that is copied may go next.
  impl_->thread.join();
}

bool Snapshotter::Due(int64_t step) const { return step % impl_->options.every == 0; }

absl::Status Snapshotter::Begin(int64_t step) {
  const GenerationName name{impl_->owner.epoch, step};
  COHORT_ASSIGN_OR_RETURN(impl_->slot, impl_->slots.Begin(name));
  impl_->name = name;
  impl_->image = impl_->writer.Open(impl_->slot);
  if (impl_->reader != nullptr) impl_->reader->Mark();
  const std::lock_guard<std::mutex> guard(impl_->lock);
  impl_->copied = 0;
  impl_->next.store(0);
  impl_->begun = true;
  impl_->changed.notify_all();
  return absl::OkStatus();
}

absl::Status Snapshotter::Finish(absl::Time deadline) {
  if (!impl_->begun) return absl::OkStatus();
  const absl::Time began = absl::Now();
  const double before = ThreadSeconds();
  impl_->Copy(deadline);
  std::unique_lock<std::mutex> guard(impl_->lock);
  bool whole = impl_->copied == impl_->chunks.size();
  while (!whole) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) break;
    impl_->changed.wait_for(guard, absl::ToChronoNanoseconds(std::min(left, absl::Hours(1))));
    whole = impl_->copied == impl_->chunks.size();
  }
  impl_->costs.waited += absl::ToDoubleSeconds(absl::Now() - began);
  if (!whole) {
    impl_->costs.caller_cpu += ThreadSeconds() - before;
    return absl::DeadlineExceededError(absl::StrCat("snapshot of ", ToString(impl_->name), ": ",
                                                    impl_->copied, " of ", impl_->chunks.size(),
                                                    " chunks are copied; the state must not change yet"));
  }
  impl_->begun = false;
  guard.unlock();
  std::vector<uint64_t> sums;
  for (size_t i = 0; i < impl_->plan.pieces.size(); ++i) {
    sums.push_back(
        SumOfChunks(absl::MakeConstSpan(impl_->sums)
                        .subspan(impl_->first_chunk[i], impl_->first_chunk[i + 1] - impl_->first_chunk[i])));
  }
  WriteImageHead(impl_->plan, impl_->name, sums, impl_->image);
  impl_->writer.Close(impl_->slot, impl_->plan.bytes);
  impl_->slots.Written();
  guard.lock();
  ++impl_->costs.snapshots;
  impl_->costs.caller_cpu += ThreadSeconds() - before;
  return absl::OkStatus();
}

void Snapshotter::Complete(int64_t step) { impl_->slots.Complete({impl_->owner.epoch, step}); }

absl::StatusOr<Image> Snapshotter::Pin(int64_t step) {
  COHORT_ASSIGN_OR_RETURN(Image image, ImageOf(step));
  COHORT_CHECK(impl_->slots.Pin(image.name), "%s is in the segment alone", ToString(image.name).c_str());
  return image;
}

void Snapshotter::Unpin(int64_t step) { impl_->slots.Unpin({impl_->owner.epoch, step}); }

std::optional<int64_t> Snapshotter::newest() const {
  const std::optional<GenerationName> name = impl_->slots.newest();
  return name ? std::optional(name->step) : std::nullopt;
}

std::optional<int64_t> Snapshotter::complete() const {
  const std::optional<GenerationName> name = impl_->slots.complete();
  return name ? std::optional(name->step) : std::nullopt;
}

absl::StatusOr<Image> Snapshotter::ImageOf(int64_t step) const {
  const GenerationName wanted{impl_->owner.epoch, step};
  for (StoredImage& stored : WholeImages(impl_->segment.memory.bytes())) {
    if (stored.image.name == wanted) return std::move(stored.image);
  }
  return absl::NotFoundError(absl::StrCat("snapshot: none of ", ToString(wanted)));
}

uint64_t Snapshotter::image_bytes() const { return impl_->plan.bytes; }

absl::Status Snapshotter::Drop() { return impl_->keeper.Drop(impl_->segment.handle); }

const SegmentOwner& Snapshotter::owner() const { return impl_->owner; }

SnapshotCosts Snapshotter::costs() const {
  const std::lock_guard<std::mutex> guard(impl_->lock);
  return impl_->costs;
}

std::vector<uint64_t> Superseded(absl::Span<const SegmentEntry> entries, GenerationName complete) {
  std::vector<uint64_t> ids;
  for (const SegmentEntry& entry : entries) {
    if (entry.owner.epoch < complete.epoch) ids.push_back(entry.id);
  }
  return ids;
}

}  // namespace cohort::runtime::elastic
