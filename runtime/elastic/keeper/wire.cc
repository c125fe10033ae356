#include "runtime/elastic/keeper/wire.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/keeper/policy.h"

namespace cohort::runtime::elastic::keeper_wire {

absl::Status Send(int socket, absl::string_view message, int fd) {
  if (message.size() > keeper_policy::kMessageBytes) {
    return absl::InvalidArgumentError(absl::StrCat("keeper: a message of ", message.size(),
                                                   " bytes, more than ", keeper_policy::kMessageBytes));
  }
  iovec body{const_cast<char*>(message.data()), message.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &body;
  header.msg_iovlen = 1;
  if (fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof(int));
  }
  while (sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    if (errno == EINTR) continue;
    // A queue that is full, too: nobody sends a second message before the first is answered.
    return absl::UnavailableError(absl::StrCat("keeper: cannot send: ", strerror(errno)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Receive(int socket, int* fd) {
  *fd = -1;
  std::string message(keeper_policy::kMessageBytes, '\0');
  iovec body{message.data(), message.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &body;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  ssize_t got;
  do {
    got = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return absl::UnavailableError(absl::StrCat("keeper: cannot receive: ", strerror(errno)));
  for (cmsghdr* at = CMSG_FIRSTHDR(&header); at != nullptr; at = CMSG_NXTHDR(&header, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    std::memcpy(fd, CMSG_DATA(at), sizeof(int));
  }
  if (got == 0 || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return absl::UnavailableError(got == 0 ? "keeper: the other side is gone" : "keeper: a message too long");
  }
  message.resize(static_cast<size_t>(got));
  return message;
}

}  // namespace cohort::runtime::elastic::keeper_wire
