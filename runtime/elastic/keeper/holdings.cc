#include "runtime/elastic/keeper/holdings.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/elastic/keeper/wire.h"

namespace cohort::runtime::elastic {

using keeper_wire::Reader;
using keeper_wire::Request;
using keeper_wire::Writer;

namespace {

uint64_t Touched(int fd) {
  struct stat info = {};
  return fstat(fd, &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

std::string Head(const absl::Status& status) {
  return Writer().Number(static_cast<int32_t>(status.code())).Text(status.message()).text();
}

absl::Status NoSuch(uint64_t id) {
  return absl::NotFoundError(absl::StrCat("keeper: no segment ", id, ": it was released"));
}

}  // namespace

Holdings::Holdings(std::function<int64_t()> free_memory, uint64_t first_id)
    : free_memory_(std::move(free_memory)), next_id_(first_id) {}

Holdings::~Holdings() {
  for (const auto& [id, segment] : segments_) close(segment.fd);
}

absl::Status Holdings::Room(const SegmentOwner& owner, uint64_t bytes) const {
  // Pages come to be when they are written: what was promised and is not there yet will be taken too.
  uint64_t held = 0, promised = 0;
  for (const auto& [id, segment] : segments_) {
    held += segment.entry.bytes;
    promised += segment.entry.bytes - std::min(segment.entry.bytes, Touched(segment.fd));
  }
  const int64_t free = free_memory_();
  const uint64_t usable = static_cast<uint64_t>(std::max<int64_t>(free - keeper_policy::kReserveBytes, 0));
  if (promised <= usable && bytes <= usable - promised) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("keeper: this host has no room for a segment of ", bytes, " bytes for ", owner.member,
                   ": ", free, " bytes are free, ", promised, " of them promised to the ", segments_.size(),
                   " segments of ", held, " bytes that are held, and ", keeper_policy::kReserveBytes,
                   " are kept free; take snapshots of less, or put fewer ranks on a host"));
}

absl::StatusOr<uint64_t> Holdings::Register(int client, int pid, SegmentEntry entry, int fd) {
  struct stat info = {};
  if (fd < 0 || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) ||
      info.st_size != static_cast<off_t>(entry.bytes) || entry.bytes == 0) {
    return absl::InvalidArgumentError("keeper: what was registered is not memory of the size that was said");
  }
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return absl::InvalidArgumentError("keeper: what was registered could shrink under its readers");
  }
  if (segments_.size() >= keeper_policy::kMostSegments) {
    return absl::ResourceExhaustedError(absl::StrCat("keeper: it holds ", segments_.size(), " segments"));
  }
  // Registered again, after a keeper was lost: it is there already.
  if (Touched(fd) < entry.bytes) COHORT_RETURN_IF_ERROR(Room(entry.owner, entry.bytes - Touched(fd)));
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (own < 0) return absl::ErrnoToStatus(errno, "keeper: dup");
  entry.id = next_id_++;
  entry.pid = pid;
  const uint64_t id = entry.id;
  segments_.emplace(id, Segment{own, client, std::move(entry)});
  return id;
}

absl::StatusOr<int> Holdings::Open(uint64_t id) const {
  const auto at = segments_.find(id);
  if (at == segments_.end()) return NoSuch(id);
  // Opened anew, for reading only: who gets it cannot write, however it maps it.
  const std::string path = absl::StrCat("/proc/self/fd/", at->second.fd);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("keeper: open of ", path));
  return fd;
}

Holdings::Answer Holdings::Handle(int client, int pid, absl::string_view message, int fd) {
  const absl::Cleanup shut = [fd] {
    if (fd >= 0) close(fd);
  };
  Reader reader(message);
  const auto magic = reader.Number<uint32_t>();
  const auto request = reader.Number<Request>();
  Answer answer;
  const auto refuse = [&answer](const absl::Status& status) { answer.message = Head(status); };
  const auto garbage = [&answer] { answer.hang_up = true; };
  if (!reader.ok()) {
    garbage();
    return answer;
  }
  if (magic != keeper_wire::kMagic) {
    refuse(absl::FailedPreconditionError(
        "keeper: it was started by another version of this program, under the same job's name"));
    return answer;
  }
  answer.message = Head(absl::OkStatus());
  switch (request) {
    case Request::kHello:
      answer.message += Writer().Number(static_cast<int32_t>(getpid())).text();
      break;
    case Request::kRegister: {
      SegmentEntry entry;
      entry.owner = reader.Owner();
      entry.kind = reader.Text();
      entry.bytes = reader.Number<uint64_t>();
      if (!reader.AtEnd() || entry.owner.member.size() + entry.kind.size() > keeper_policy::kNameBytes) {
        garbage();
        break;
      }
      const absl::StatusOr<uint64_t> id = Register(client, pid, std::move(entry), fd);
      if (!id.ok()) {
        refuse(id.status());
      } else {
        answer.message += Writer().Number(*id).text();
      }
      break;
    }
    case Request::kRename: {
      const auto id = reader.Number<uint64_t>();
      SegmentOwner owner = reader.Owner();
      if (!reader.AtEnd() || owner.member.size() > keeper_policy::kNameBytes) {
        garbage();
      } else if (const auto at = segments_.find(id); at == segments_.end()) {
        refuse(NoSuch(id));
      } else {
        at->second.entry.owner = std::move(owner);
      }
      break;
    }
    case Request::kRelease: {
      const auto at = segments_.find(reader.Number<uint64_t>());
      if (!reader.AtEnd()) {
        garbage();
      } else if (at == segments_.end()) {
        refuse(absl::NotFoundError("keeper: no such segment: it was released"));
      } else {
        close(at->second.fd);
        segments_.erase(at);
      }
      break;
    }
    case Request::kList: {
      const auto after = reader.Number<uint64_t>();
      Writer list;
      uint32_t count = 0;
      for (auto at = segments_.upper_bound(after);
           at != segments_.end() && count < keeper_policy::kListedAtOnce; ++at, ++count) {
        const SegmentEntry& entry = at->second.entry;
        list.Number(entry.id).Owner(entry.owner).Text(entry.kind).Number(entry.bytes);
        list.Number(static_cast<int32_t>(entry.pid)).Number(static_cast<uint8_t>(at->second.client >= 0));
      }
      answer.message += Writer().Number(count).text() + list.text();
      break;
    }
    case Request::kMap: {
      const auto id = reader.Number<uint64_t>();
      const absl::StatusOr<int> opened = Open(id);
      if (!opened.ok()) {
        refuse(opened.status());
      } else {
        answer.fd = *opened;
        answer.message += Writer().Number(segments_.at(id).entry.bytes).text();
      }
      break;
    }
    case Request::kEnd:
      answer.end = true;
      break;
    default:
      garbage();
  }
  if (!reader.ok() && answer.fd >= 0) close(std::exchange(answer.fd, -1));
  answer.hang_up |= !reader.ok();
  return answer;
}

void Holdings::Gone(int client) {
  for (auto& [id, segment] : segments_) {
    if (segment.client == client) segment.client = -1;
  }
}

}  // namespace cohort::runtime::elastic
