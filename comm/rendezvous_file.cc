// Ranks that meet in a folder: a key is a file.
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/policy.h"
#include "comm/rendezvous.h"

namespace cohort::comm {
namespace {

class FolderBoard : public Rendezvous {
 public:
  FolderBoard(std::string folder, int rank, int size)
      : folder_(std::move(folder)), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status Put(const std::string& key, const std::string& value) override {
    std::error_code error;
    std::filesystem::create_directories(folder_, error);
    if (error)
      return absl::UnavailableError(absl::StrCat("cannot make the folder ", folder_, ": ", error.message()));
    const std::string path = Path(key);
    // Readers see the whole value or none: it is renamed into place.
    const std::string draft = absl::StrCat(path, ".draft-", rank_, "-", getpid());
    {
      std::ofstream file(draft, std::ios::binary);
      file << value;
      file.close();
      if (!file) return absl::UnavailableError(absl::StrCat("cannot write ", draft));
    }
    if (std::filesystem::exists(path, error)) {
      unlink(draft.c_str());
      return absl::AlreadyExistsError(absl::StrCat(
          "the rendezvous folder ", folder_, " already has ", key,
          ": another job left it there, or two ranks have the same number. Use an empty folder"));
    }
    if (rename(draft.c_str(), path.c_str()) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot rename ", draft));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Get(const std::string& key, absl::Time deadline) override {
    const std::string path = Path(key);
    for (absl::Duration pause = policy::kRendezvousFirstPause;;
         pause = std::min(2 * pause, policy::kRendezvousLongestPause)) {
      std::ifstream file(path, std::ios::binary);
      if (file) {
        std::ostringstream value;
        value << file.rdbuf();
        return std::move(value).str();
      }
      if (absl::Now() >= deadline) {
        return absl::DeadlineExceededError(
            absl::StrCat("nobody wrote ", key, " to the rendezvous folder ", folder_, " in time"));
      }
      absl::SleepFor(std::min(pause, deadline - absl::Now()));
    }
  }

 private:
  std::string Path(const std::string& key) const {
    return absl::StrCat(folder_, "/", absl::WebSafeBase64Escape(key));
  }

  const std::string folder_;
  const int rank_;
  const int size_;
};

}  // namespace

std::shared_ptr<Rendezvous> FileRendezvous(const std::string& folder, int rank, int size) {
  return std::make_shared<FolderBoard>(folder, rank, size);
}

}  // namespace cohort::comm
