// Ranks of one MPI job: a key goes to everybody as a message.
#ifdef COHORT_HAVE_MPI

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/policy.h"
#include "comm/rendezvous.h"
#include "comm/transport/mpi/mpi_runtime.h"

namespace cohort::comm {
namespace {

constexpr int kBoardTag = 1;

class MpiBoard : public Rendezvous {
 public:
  explicit MpiBoard(mpi::Runtime* runtime) : runtime_(*runtime) {}

  int rank() const override { return runtime_.rank; }
  int size() const override { return runtime_.size; }

  absl::Status Put(const std::string& key, const std::string& value) override {
    const std::lock_guard lock(runtime_.mutex);
    if (!entries_.emplace(key, value).second) {
      return absl::AlreadyExistsError(absl::StrCat("the MPI rendezvous already has ", key));
    }
    // key \0 value; the text stays until all its sends are over.
    Message& message = messages_.emplace_back();
    message.text = absl::StrCat(key, std::string(1, '\0'), value);
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      MPI_Isend(message.text.data(), static_cast<int>(message.text.size()), MPI_BYTE, peer, kBoardTag,
                runtime_.board, &message.sends.emplace_back());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Get(const std::string& key, absl::Time deadline) override {
    for (absl::Duration pause = policy::kRendezvousFirstPause;;
         pause = std::min(2 * pause, policy::kRendezvousLongestPause)) {
      {
        const std::lock_guard lock(runtime_.mutex);
        Progress();
        if (const auto entry = entries_.find(key); entry != entries_.end()) return entry->second;
      }
      if (absl::Now() >= deadline) {
        return absl::DeadlineExceededError(absl::StrCat("no rank of the MPI job said ", key, " in time"));
      }
      absl::SleepFor(pause);
    }
  }

 private:
  struct Message {
    std::string text;
    std::vector<MPI_Request> sends;
  };

  void Progress() {
    for (;;) {
      int found = 0;
      MPI_Status status;
      MPI_Iprobe(MPI_ANY_SOURCE, kBoardTag, runtime_.board, &found, &status);
      if (!found) break;
      int bytes = 0;
      MPI_Get_count(&status, MPI_BYTE, &bytes);
      std::string text(static_cast<size_t>(bytes), '\0');
      MPI_Recv(text.data(), bytes, MPI_BYTE, status.MPI_SOURCE, kBoardTag, runtime_.board, MPI_STATUS_IGNORE);
      const size_t split = text.find('\0');
      if (split != std::string::npos) entries_.emplace(text.substr(0, split), text.substr(split + 1));
    }
    std::erase_if(messages_, [](Message& message) {
      int over = 0;
      MPI_Testall(static_cast<int>(message.sends.size()), message.sends.data(), &over, MPI_STATUSES_IGNORE);
      return over != 0;
    });
  }

  mpi::Runtime& runtime_;
  std::map<std::string, std::string> entries_;
  std::list<Message> messages_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<Rendezvous>> MpiRendezvous() {
  COHORT_ASSIGN_OR_RETURN(mpi::Runtime * runtime, mpi::Start());
  // One board a process: MPI messages are for whoever asks first.
  static const std::shared_ptr<Rendezvous>* board = new std::shared_ptr<Rendezvous>(new MpiBoard(runtime));
  return *board;
}

}  // namespace cohort::comm

#endif  // COHORT_HAVE_MPI
