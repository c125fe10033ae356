#include "comm/interposer/board.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/policy.h"

namespace cohort::comm::interposer {
namespace {

constexpr int kTag = 1;

}  // namespace

Board::Board(MPI_Comm comm) : comm_(comm) {
  PMPI_Comm_rank(comm_, &rank_);
  PMPI_Comm_size(comm_, &size_);
}

absl::Status Board::Put(const std::string& key, const std::string& value) {
  entries_.emplace(key, value);
  const std::string& text = texts_.emplace_back(absl::StrCat(key, std::string(1, '\0'), value));
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_) continue;
    PMPI_Isend(text.data(), static_cast<int>(text.size()), MPI_BYTE, peer, kTag, comm_,
               &sends_.emplace_back());
  }
  ++put_;
  return absl::OkStatus();
}

absl::StatusOr<std::string> Board::Get(const std::string& key, absl::Time deadline) {
  for (absl::Duration pause = policy::kRendezvousFirstPause;;
       pause = std::min(2 * pause, policy::kRendezvousLongestPause)) {
    TakeIn();
    if (const auto entry = entries_.find(key); entry != entries_.end()) return entry->second;
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("no rank of the MPI job said ", key, " in time"));
    }
    absl::SleepFor(pause);
  }
}

void Board::TakeIn() {
  for (;;) {
    int found = 0;
    MPI_Status status;
    PMPI_Iprobe(MPI_ANY_SOURCE, kTag, comm_, &found, &status);
    if (!found) return;
    int bytes = 0;
    PMPI_Get_count(&status, MPI_BYTE, &bytes);
    std::string text(static_cast<size_t>(bytes), '\0');
    PMPI_Recv(text.data(), bytes, MPI_BYTE, status.MPI_SOURCE, kTag, comm_, MPI_STATUS_IGNORE);
    ++taken_in_;
    const size_t split = text.find('\0');
    if (split != std::string::npos) entries_.emplace(text.substr(0, split), text.substr(split + 1));
  }
}

void Board::Close() {
  int all = 0;
  PMPI_Allreduce(&put_, &all, 1, MPI_INT, MPI_SUM, comm_);
  while (taken_in_ < all - put_) TakeIn();
  PMPI_Waitall(static_cast<int>(sends_.size()), sends_.data(), MPI_STATUSES_IGNORE);
  sends_.clear();
  texts_.clear();
}

}  // namespace cohort::comm::interposer
