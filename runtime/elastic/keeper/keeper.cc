#include "runtime/elastic/keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/elastic/keeper/meet.h"
#include "runtime/elastic/keeper/wire.h"

namespace cohort::runtime::elastic {

using keeper_wire::Reader;
using keeper_wire::Request;
using keeper_wire::RequestHead;
using keeper_wire::Writer;

namespace {

absl::StatusOr<MappedSegment> MapFile(int fd, size_t bytes, int protection) {
  void* memory = mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, absl::StrCat("keeper: mmap of ", bytes, " bytes"));
  }
  return MappedSegment(static_cast<std::byte*>(memory), bytes);
}

std::string ReleaseRequest(uint64_t id) {
  return Writer().Number(keeper_wire::kMagic).Number(Request::kRelease).Number(id).text();
}

}  // namespace

MappedSegment::MappedSegment(MappedSegment&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

MappedSegment& MappedSegment::operator=(MappedSegment&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedSegment::~MappedSegment() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

absl::StatusOr<std::unique_ptr<Keeper>> Keeper::Connect(KeeperOptions options) {
  std::unique_ptr<Keeper> keeper(new Keeper(std::move(options)));
  COHORT_RETURN_IF_ERROR(keeper->Meet(true));
  return keeper;
}

absl::StatusOr<std::unique_ptr<Keeper>> Keeper::Find(KeeperOptions options) {
  std::unique_ptr<Keeper> keeper(new Keeper(std::move(options)));
  COHORT_RETURN_IF_ERROR(keeper->Meet(false));
  return keeper;
}

Keeper::~Keeper() {
  if (socket_ >= 0) close(socket_);
  for (const auto& [handle, own] : own_) close(own.fd);
}

absl::Status Keeper::Meet(bool start) {
  const absl::Time deadline = absl::Now() + options_.start_wait;
  while (true) {
    COHORT_ASSIGN_OR_RETURN(socket_, MeetKeeper(options_, start, deadline));
    absl::StatusOr<std::string> answer = Call(RequestHead(Request::kHello));
    if (answer.ok()) {
      pid_ = Reader(*answer).Number<int32_t>();
      return absl::OkStatus();
    }
    // One that was about to go. Another speaks another version, and will not learn this one.
    if (!absl::IsUnavailable(answer.status()) || absl::Now() >= deadline) return answer.status();
  }
}

bool Keeper::Alive() const {
  const std::lock_guard<std::mutex> guard(lock_);
  if (socket_ < 0) return false;
  pollfd entry{socket_, POLLIN | POLLRDHUP, 0};
  return poll(&entry, 1, 0) == 0;
}

absl::Status Keeper::Reconnect() {
  const std::lock_guard<std::mutex> guard(lock_);
  if (socket_ >= 0) close(std::exchange(socket_, -1));
  COHORT_RETURN_IF_ERROR(Meet(true));
  for (auto& [handle, own] : own_) COHORT_RETURN_IF_ERROR(Register(own));
  return absl::OkStatus();
}

// With the lock held, or before anybody else has this object.
absl::StatusOr<std::string> Keeper::Call(const std::string& request, int send_fd, int* received_fd) {
  if (socket_ < 0) return absl::UnavailableError("keeper: the connection is lost; reconnect");
  const absl::Time deadline = absl::Now() + options_.answer_wait;
  int fd = -1;
  absl::StatusOr<std::string> answer = [&]() -> absl::StatusOr<std::string> {
    COHORT_RETURN_IF_ERROR(keeper_wire::Send(socket_, request, send_fd));
    while (true) {
      const int64_t left = absl::ToInt64Milliseconds(deadline - absl::Now());
      pollfd entry{socket_, POLLIN, 0};
      const int ready = poll(&entry, 1, static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30)));
      if (ready > 0) return keeper_wire::Receive(socket_, &fd);
      if (ready < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "keeper: poll");
      if (left <= 0) {
        return absl::UnavailableError(absl::StrCat("keeper: process ", pid_, " did not answer within ",
                                                   absl::FormatDuration(options_.answer_wait)));
      }
    }
  }();
  Reader reader(answer.ok() ? absl::string_view(*answer) : absl::string_view());
  const auto code = static_cast<absl::StatusCode>(reader.Number<int32_t>());
  const std::string message = reader.Text();
  if (!answer.ok() || !reader.ok()) {
    // An answer that came later would be taken for another request's.
    close(std::exchange(socket_, -1));
    if (fd >= 0) close(fd);
    return answer.ok() ? absl::UnavailableError("keeper: an answer that is none") : answer.status();
  }
  if (received_fd != nullptr) {
    *received_fd = fd;
  } else if (fd >= 0) {
    close(fd);
  }
  if (code != absl::StatusCode::kOk) return absl::Status(code, message);
  return std::string(reader.rest());
}

absl::Status Keeper::Register(Own& own) {
  const std::string request = Writer()
                                  .Number(keeper_wire::kMagic)
                                  .Number(Request::kRegister)
                                  .Owner(own.owner)
                                  .Text(own.kind)
                                  .Number(uint64_t{own.bytes})
                                  .text();
  COHORT_ASSIGN_OR_RETURN(const std::string answer, Call(request, own.fd));
  own.id = Reader(answer).Number<uint64_t>();
  return absl::OkStatus();
}

absl::StatusOr<Keeper::Created> Keeper::Create(const SegmentOwner& owner, const std::string& kind,
                                               size_t bytes) {
  if (bytes == 0) return absl::InvalidArgumentError("keeper: a segment of no bytes");
  const int fd = memfd_create("cohort-keeper", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return absl::ErrnoToStatus(errno, "keeper: memfd_create");
  const std::lock_guard<std::mutex> guard(lock_);
  Own own{fd, 0, owner, kind, bytes};
  absl::StatusOr<MappedSegment> memory = [&]() -> absl::StatusOr<MappedSegment> {
    if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("keeper: ftruncate to ", bytes, " bytes"));
    }
    // A segment that shrinks would end those who have mapped it.
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
      return absl::ErrnoToStatus(errno, "keeper: sealing a memfd");
    }
    // The keeper says with numbers what the system would refuse without.
    COHORT_RETURN_IF_ERROR(Register(own));
    absl::StatusOr<MappedSegment> mapped = MapFile(fd, bytes, PROT_READ | PROT_WRITE);
    if (!mapped.ok()) (void)Call(ReleaseRequest(own.id));
    return mapped;
  }();
  if (!memory.ok()) {
    close(fd);
    return memory.status();
  }
  // Fewer page faults where the system gives huge pages to shared memory; else it has no effect.
  (void)madvise(memory->writable().data(), bytes, MADV_HUGEPAGE);
  const uint64_t handle = next_handle_++;
  own_.emplace(handle, std::move(own));
  return Created{handle, *std::move(memory)};
}

absl::Status Keeper::Rename(uint64_t handle, const SegmentOwner& owner) {
  const std::lock_guard<std::mutex> guard(lock_);
  const auto at = own_.find(handle);
  if (at == own_.end()) return absl::NotFoundError("keeper: no such segment of this process");
  at->second.owner = owner;
  return Call(Writer()
                  .Number(keeper_wire::kMagic)
                  .Number(Request::kRename)
                  .Number(at->second.id)
                  .Owner(owner)
                  .text())
      .status();
}

absl::Status Keeper::Drop(uint64_t handle) {
  const std::lock_guard<std::mutex> guard(lock_);
  const auto at = own_.find(handle);
  if (at == own_.end()) return absl::NotFoundError("keeper: no such segment of this process");
  const uint64_t id = at->second.id;
  close(at->second.fd);
  own_.erase(at);
  const absl::Status status = Call(ReleaseRequest(id)).status();
  return absl::IsNotFound(status) ? absl::OkStatus() : status;  // somebody has released it already
}

absl::StatusOr<std::vector<SegmentEntry>> Keeper::List() {
  const std::lock_guard<std::mutex> guard(lock_);
  std::vector<SegmentEntry> entries;
  uint64_t after = 0;
  while (true) {
    const std::string request =
        Writer().Number(keeper_wire::kMagic).Number(Request::kList).Number(after).text();
    COHORT_ASSIGN_OR_RETURN(const std::string answer, Call(request));
    Reader reader(answer);
    const auto count = reader.Number<uint32_t>();
    for (uint32_t i = 0; i < count; ++i) {
      SegmentEntry entry;
      entry.id = reader.Number<uint64_t>();
      entry.owner = reader.Owner();
      entry.kind = reader.Text();
      entry.bytes = reader.Number<uint64_t>();
      entry.pid = reader.Number<int32_t>();
      entry.owner_here = reader.Number<uint8_t>() != 0;
      after = entry.id;
      entries.push_back(std::move(entry));
    }
    if (!reader.ok()) return absl::InternalError("keeper: a list that is none");
    if (count == 0) return entries;
  }
}

absl::StatusOr<MappedSegment> Keeper::Map(uint64_t id) {
  const std::lock_guard<std::mutex> guard(lock_);
  int fd = -1;
  const std::string request = Writer().Number(keeper_wire::kMagic).Number(Request::kMap).Number(id).text();
  absl::StatusOr<std::string> answer = Call(request, -1, &fd);
  if (answer.ok() && fd < 0) return absl::InternalError("keeper: a segment without its file");
  if (!answer.ok()) {
    if (fd >= 0) close(fd);
    return answer.status();
  }
  absl::StatusOr<MappedSegment> memory = MapFile(fd, Reader(*answer).Number<uint64_t>(), PROT_READ);
  close(fd);
  return memory;
}

absl::Status Keeper::Release(uint64_t id) {
  const std::lock_guard<std::mutex> guard(lock_);
  return Call(ReleaseRequest(id)).status();
}

absl::Status Keeper::End() {
  const std::lock_guard<std::mutex> guard(lock_);
  const absl::Status status = Call(RequestHead(Request::kEnd)).status();
  if (socket_ >= 0) close(std::exchange(socket_, -1));
  return status;
}

}  // namespace cohort::runtime::elastic
