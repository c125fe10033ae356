// A journal in a folder. FOLDER/journal is a line that says what it is, and frames: length and CRC-32C (4 bytes each),
// index (8 bytes), text. The first frame is the snapshot, each further one what one Append has brought, so that behind
// one that a crash has torn there cannot be a whole one. Numbers are little-endian, as all machines that this runs on.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/journal.h"
#include "runtime/file.h"
#include "runtime/metrics/crc32c.h"

namespace cohort::cluster {
namespace {

using runtime::OutputFile;

constexpr absl::string_view kMagic = "cohort coordinator journal 1\n";
constexpr size_t kHeaderBytes = 16;

struct Frame {
  uint64_t index = 0;
  absl::string_view text;
  size_t bytes = 0;  // of all of it
};

template <typename T>
T NumberAt(absl::string_view bytes, size_t offset) {
  T number;
  std::memcpy(&number, bytes.data() + offset, sizeof(number));
  return number;
}

// The CRC covers index and text.
std::string MakeFrame(uint64_t index, absl::string_view text) {
  std::string covered(reinterpret_cast<const char*>(&index), sizeof(index));
  covered.append(text.data(), text.size());
  const auto length = static_cast<uint32_t>(text.size());
  const uint32_t crc = runtime::Crc32c(covered);
  std::string frame(reinterpret_cast<const char*>(&length), sizeof(length));
  frame.append(reinterpret_cast<const char*>(&crc), sizeof(crc));
  return frame + covered;
}

// The frame at the beginning of `bytes`, if it is whole.
std::optional<Frame> ReadFrame(absl::string_view bytes) {
  if (bytes.size() < kHeaderBytes) return std::nullopt;
  const size_t length = NumberAt<uint32_t>(bytes, 0);
  if (bytes.size() - kHeaderBytes < length) return std::nullopt;
  if (runtime::Crc32c(bytes.substr(8, 8 + length)) != NumberAt<uint32_t>(bytes, 4)) return std::nullopt;
  return Frame{NumberAt<uint64_t>(bytes, 8), bytes.substr(kHeaderBytes, length), kHeaderBytes + length};
}

// Whether anywhere in what follows a broken frame there is a whole one: then it was not the crash of a writer that
// broke it.
bool HasLaterFrame(absl::string_view bytes, uint64_t after) {
  constexpr uint64_t kFar = uint64_t{1} << 40;
  for (size_t at = 1; at + kHeaderBytes <= bytes.size(); ++at) {
    const uint64_t index = NumberAt<uint64_t>(bytes, at + 8);
    if (index > after && index - after < kFar && ReadFrame(bytes.substr(at)).has_value()) return true;
  }
  return false;
}

class FileJournal : public Journal {
 public:
  FileJournal(std::string folder, int lock) : folder_(std::move(folder)), lock_(lock) {}
  ~FileJournal() override { close(lock_); }

  std::string name() const override { return folder_; }

  absl::StatusOr<Contents> Load() override {
    file_.reset();
    absl::StatusOr<std::string> text = runtime::ReadFile(path());
    if (absl::IsNotFound(text.status())) {
      COHORT_RETURN_IF_ERROR(Replace(0, ""));
      next_ = 0;
      return Contents();
    }
    COHORT_RETURN_IF_ERROR(text.status());
    Contents contents;
    absl::string_view rest = *text;
    if (!absl::ConsumePrefix(&rest, kMagic)) return Damaged(0, "it does not begin as a journal does");
    std::optional<Frame> frame = ReadFrame(rest);
    if (!frame.has_value()) return Damaged(kMagic.size(), "the state at its beginning is broken");
    contents.snapshot = std::string(frame->text);
    contents.next = frame->index;
    rest.remove_prefix(frame->bytes);
    while (!rest.empty()) {
      const size_t offset = text->size() - rest.size();
      frame = ReadFrame(rest);
      if (!frame.has_value()) {
        if (HasLaterFrame(rest, contents.next)) return Damaged(offset, "whole records follow a broken one");
        contents.warning = absl::StrCat("the last ", rest.size(), " bytes of ", path(),
                                        " were not written to their end; they are cut off");
        if (truncate(path().c_str(), static_cast<off_t>(offset)) != 0) {
          return runtime::ErrnoStatus(errno, "cut off the end of", path());
        }
        break;
      }
      if (frame->index != contents.next) return Damaged(offset, "a record is missing");
      const size_t before = contents.records.size();
      if (!UnpackRecords(frame->text, contents.records)) return Damaged(offset, "a record is no record");
      contents.next += contents.records.size() - before;
      rest.remove_prefix(frame->bytes);
    }
    COHORT_ASSIGN_OR_RETURN(file_, OutputFile::Append(path()));
    COHORT_RETURN_IF_ERROR(file_->Sync());  // also of what was cut off
    next_ = contents.next;
    return contents;
  }

  absl::Status Append(uint64_t index, absl::Span<const std::string> records) override {
    COHORT_RETURN_IF_ERROR(CheckTurn(index));
    absl::Status status = file_->WriteWhole(MakeFrame(index, PackRecords(records)));
    if (status.ok()) status = file_->Sync();
    if (!status.ok()) {
      file_.reset();
      return status;
    }
    next_ = index + records.size();
    return absl::OkStatus();
  }

  absl::Status Compact(uint64_t index, absl::string_view snapshot) override {
    COHORT_RETURN_IF_ERROR(CheckTurn(index));
    return Replace(index, snapshot);  // the former journal stays where this fails
  }

 private:
  std::string path() const { return folder_ + "/journal"; }

  absl::Status CheckTurn(uint64_t index) const {
    if (file_.has_value() && index == next_) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "record ", index, " cannot be written to ", path(),
        file_.has_value() ? absl::StrCat(", whose next one is ", next_) : ", which is to be read first"));
  }

  absl::Status Damaged(size_t offset, absl::string_view how) const {
    return absl::DataLossError(absl::StrCat(
        path(), " is damaged at byte ", offset, ": ", how,
        ". Restore it from a copy, or move it away to begin anew: members that live join again"));
  }

  // A journal of the snapshot alone takes the place of the one that is there.
  absl::Status Replace(uint64_t index, absl::string_view snapshot) {
    const std::string partial = path() + ".partial";
    COHORT_RETURN_IF_ERROR(
        runtime::WriteFileDurably(partial, absl::StrCat(kMagic, MakeFrame(index, snapshot))));
    COHORT_ASSIGN_OR_RETURN(OutputFile fresh, OutputFile::Append(partial));
    if (rename(partial.c_str(), path().c_str()) != 0) return runtime::ErrnoStatus(errno, "replace", path());
    file_ = std::move(fresh);
    return runtime::SyncFolder(folder_);
  }

  const std::string folder_;
  const int lock_;
  std::optional<OutputFile> file_;  // none: Load comes first
  uint64_t next_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Journal>> OpenFileJournal(const std::string& folder) {
  if (folder.empty()) return absl::InvalidArgumentError("the coordinator's state needs a folder");
  const std::string path = folder + "/lock";
  COHORT_RETURN_IF_ERROR(runtime::MakeFolderOf(path));
  const int lock = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock < 0) return runtime::ErrnoStatus(errno, "open", path);
  if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    close(lock);
    if (error != EWOULDBLOCK) return runtime::ErrnoStatus(error, "lock", path);
    const std::string holder = runtime::ReadFile(path).value_or("");
    return absl::FailedPreconditionError(absl::StrCat("another coordinator holds ", folder, " (",
                                                      absl::StripSuffix(holder, "\n"),
                                                      "); end that one first"));
  }
  const std::string holder = absl::StrCat("process ", getpid(), "\n");
  if (ftruncate(lock, 0) != 0 || pwrite(lock, holder.data(), holder.size(), 0) < 0) {
    const absl::Status status = runtime::ErrnoStatus(errno, "write", path);
    close(lock);
    return status;
  }
  return std::make_unique<FileJournal>(folder, lock);
}

}  // namespace cohort::cluster
