#include "parallel/elastic/background_save.h"

#include <sys/resource.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "parallel/elastic/policy.h"
#include "parallel/global_sums.h"
#include "runtime/checkpoint/agree.h"

namespace cohort::parallel {

using runtime::Tensor;
using runtime::WrittenState;

std::vector<WrittenState> WrittenFrom(const runtime::elastic::Image& image, size_t first,
                                      runtime::Trainable& trainable) {
  std::vector<WrittenState> written;
  size_t at = first;
  // The next piece of the image.
  const auto next = [&](const std::string& name, int64_t elements, DataType dtype) {
    COHORT_CHECK(at < image.pieces.size(), "the snapshot has no piece %s", name.c_str());
    const runtime::elastic::Image::Piece& piece = image.pieces[at++];
    COHORT_CHECK(piece.name == name && piece.data.size() == static_cast<size_t>(elements) * SizeOf(dtype),
                 "the snapshot has %s of %zu bytes where %s is looked for", piece.name.c_str(),
                 piece.data.size(), name.c_str());
    // It is only read.
    return Tensor::Wrap(runtime::CpuDevice(), nullptr, const_cast<std::byte*>(piece.data.data()), {elements},
                        dtype);
  };
  for (const runtime::StateEntry& entry : trainable.state()) {
    const std::string& name = entry.piece.name;
    const int64_t size = entry.piece.size();
    WrittenState one;
    one.piece = entry.piece;
    if (entry.slice < 0) {
      one.dtype = entry.parameter->value.dtype();
      one.value = next(name, size, one.dtype);
    } else {
      const runtime::OptimizerSlice& slice = trainable.slices()[static_cast<size_t>(entry.slice)];
      one.dtype = slice.value.defined() ? slice.value.dtype() : slice.master.dtype();
      for (const char* kind : runtime::kStateKinds) {
        one.state.push_back(next(absl::StrCat(name, "/", kind), size, slice.master.dtype()));
      }
      // Values are the masters, rounded, as whoever writes them does.
      one.value = one.state[0];
    }
    if (entry.writes && (!one.piece.empty() || one.piece.full_size() == 0)) written.push_back(std::move(one));
  }
  return written;
}

// How the threads of the ranks' saves meet.
class BackgroundSave::Ranks final : public runtime::SavingRanks {
 public:
  explicit Ranks(comm::Communicator& group) : group_(group) {}

  int rank() const override { return group_.rank(); }
  int world() const override { return group_.size(); }
  absl::StatusOr<std::vector<std::string>> GatherStrings(const std::string& mine) override {
    absl::StatusOr<std::vector<std::string>> all;
    COHORT_RETURN_IF_ERROR(Use([&] {
      all = parallel::GatherStrings(group_, mine);
      return all.status();
    }));
    return all;
  }

  // A disk may take longer than an operation waits for its peers: every so often the ranks say that they still write.
  absl::Status Together(const std::function<absl::Status()>& work) override {
    absl::Status mine;
    bool done = false;
    std::thread worker([&] {
      // Of this thread alone, and of those that it starts. What trains goes first.
      (void)setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), elastic_policy::kSaveNice);
      const absl::Status status = work();
      const std::lock_guard<std::mutex> guard(lock_);
      mine = status;
      done = true;
      changed_.notify_all();
    });
    absl::Status met;
    for (int64_t busy = 1; met.ok() && busy > 0;) {
      {
        std::unique_lock<std::mutex> guard(lock_);
        changed_.wait_for(guard, absl::ToChronoNanoseconds(elastic_policy::kSaveHeartbeat),
                          [&] { return done || !cancelled_.ok(); });
        busy = done ? 0 : 1;
      }
      met =
          Use([&] { return group_.AllReduce(&busy, &busy, 1, DataType::kI64, comm::ReduceOp::kMax).Wait(); });
    }
    worker.join();
    if (!met.ok()) return met;
    return runtime::AgreeStatus([this](const std::string& text) { return GatherStrings(text); }, mine);
  }

  void Cancel(const absl::Status& why) {
    {
      const std::lock_guard<std::mutex> guard(lock_);
      if (cancelled_.ok()) cancelled_ = why;
      changed_.notify_all();
    }
    group_.Abort(why);
    std::unique_lock<std::mutex> guard(lock_);
    changed_.wait(guard, [this] { return !in_use_; });
  }

 private:
  // An operation of the group. Its error ends what the others do there.
  absl::Status Use(const std::function<absl::Status()>& operation) {
    {
      const std::lock_guard<std::mutex> guard(lock_);
      if (!cancelled_.ok()) return cancelled_;
      in_use_ = true;
    }
    const absl::Status status = operation();
    if (!status.ok()) group_.Abort(status);
    const std::lock_guard<std::mutex> guard(lock_);
    in_use_ = false;
    changed_.notify_all();
    return cancelled_.ok() ? status : cancelled_;
  }

  comm::Communicator& group_;
  std::mutex lock_;
  std::condition_variable changed_;
  absl::Status cancelled_;
  bool in_use_ = false;
};

absl::StatusOr<std::unique_ptr<BackgroundSave>> BackgroundSave::Create(comm::Communicator& group,
                                                                       std::string attempt) {
  std::unique_ptr<BackgroundSave> save(new BackgroundSave);
  COHORT_ASSIGN_OR_RETURN(save->group_, group.Split(0, group.rank()));
  save->ranks_ = std::make_unique<Ranks>(*save->group_);
  save->attempt_ = std::move(attempt);
  return save;
}

BackgroundSave::~BackgroundSave() {
  if (saving_.valid()) Cancel(absl::CancelledError("the training is over"));
  if (saving_.valid()) saving_.wait();
}

void BackgroundSave::Start(int64_t step, std::vector<WrittenState> written, WriteCheckpoint write) {
  COHORT_CHECK(!saving_.valid(), "the checkpoint of step %lld is still being written",
               static_cast<long long>(step_));
  step_ = step;
  began_ = absl::Now();
  saving_ = std::async(std::launch::async, [this, written = std::move(written), write = std::move(write)] {
    return write(*ranks_, written, attempt_);
  });
}

std::optional<BackgroundSave::Outcome> BackgroundSave::Take(bool wait) {
  if (!saving_.valid()) return std::nullopt;
  if (!wait && saving_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return std::nullopt;
  Outcome outcome{step_, saving_.get(), 0};
  outcome.seconds = absl::ToDoubleSeconds(absl::Now() - began_);
  return outcome;
}

void BackgroundSave::Cancel(const absl::Status& why) { ranks_->Cancel(why); }

}  // namespace cohort::parallel
