#include "runtime/elastic/keeper/meet.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/topology.h"

extern char** environ;

namespace cohort::runtime::elastic {
namespace {

// The keeper's listening socket, after its standard files.
constexpr int kListenFd = 3;

struct Address {
  sockaddr_un name = {};
  socklen_t length = 0;
};

Address Abstract(const std::string& text) {
  Address address;
  address.name.sun_family = AF_UNIX;
  COHORT_CHECK(text.size() + 1 < sizeof(address.name.sun_path), "a keeper's address of %zu bytes",
               text.size());
  memcpy(address.name.sun_path + 1, text.data(), text.size());
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  return address;
}

absl::StatusOr<int> Socket() {
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "keeper: socket");
  return fd;
}

uint64_t Hash(absl::string_view text) {  // FNV-1a
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

// Runs the command with `listening` as file kListenFd, in a session of its own, with no other file of this process. It
// forks and returns, so that the keeper is nobody's child.
absl::Status Start(const KeeperOptions& options, int listening) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  const absl::Cleanup free = [&] {
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
  };
  // mpirun waits for the end of its ranks' outputs: the keeper must not hold them.
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&files, listening, kListenFd);
  posix_spawn_file_actions_addclosefrom_np(&files, kListenFd + 1);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::vector<std::string> words = options.command;
  words.push_back(absl::StrCat(kListenFd));
  words.push_back(absl::StrCat(absl::ToInt64Milliseconds(options.idle_life)));
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = -1;
  const int error = posix_spawn(&child, argv[0], &files, &attributes, argv.data(), environ);
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("keeper: cannot run ", words[0]));
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno == EINTR) continue;
    return absl::OkStatus();  // somebody else in this process waits for all children: the socket will tell
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return absl::InternalError(absl::StrFormat("keeper: %s ended with status %#x", words[0], status));
  }
  return absl::OkStatus();
}

// False where somebody else is listening, or about to.
absl::StatusOr<bool> ListenAndStart(const KeeperOptions& options, const Address& address) {
  COHORT_ASSIGN_OR_RETURN(const int opened, Socket());
  // Out of the way of the files that Start puts in place.
  const int fd = fcntl(opened, F_DUPFD_CLOEXEC, kListenFd + 1);
  close(opened);
  if (fd < 0) return absl::ErrnoToStatus(errno, "keeper: fcntl");
  const absl::Cleanup shut = [fd] { close(fd); };
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address.name), address.length) != 0) {
    if (errno == EADDRINUSE) return false;
    return absl::ErrnoToStatus(errno, "keeper: bind");
  }
  // Who connects from here on waits for the keeper to take it up.
  if (listen(fd, static_cast<int>(keeper_policy::kMostClients)) != 0) {
    return absl::ErrnoToStatus(errno, "keeper: listen");
  }
  COHORT_RETURN_IF_ERROR(Start(options, fd));
  return true;
}

}  // namespace

std::string KeeperAddress(const KeeperOptions& options) {
  const std::string host = options.host.empty() ? comm::HostIdentity() : options.host;
  // A hash, because names have any length; the job's own beginning for whoever reads /proc/net/unix.
  const uint64_t hash = Hash(absl::StrCat(options.job.size(), ":", options.job, host));
  return absl::StrFormat("cohort-keeper-%d-%s-%016x", geteuid(), options.job.substr(0, 24), hash);
}

absl::StatusOr<int> MeetKeeper(const KeeperOptions& options, bool start, absl::Time deadline) {
  const std::string name = KeeperAddress(options);
  const Address address = Abstract(name);
  if (start && options.command.empty()) {
    return absl::InvalidArgumentError("keeper: no command that would run one");
  }
  while (true) {
    COHORT_ASSIGN_OR_RETURN(const int fd, Socket());
    absl::Cleanup shut = [fd] { close(fd); };
    const timeval limit = absl::ToTimeval(std::max(deadline - absl::Now(), absl::Milliseconds(1)));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address.name), address.length) == 0) {
      ucred peer = {};
      socklen_t size = sizeof(peer);
      if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != geteuid()) {
        return absl::PermissionDeniedError(
            absl::StrCat("keeper: socket ", name, " belongs to user ", peer.uid, ", not to this one"));
      }
      std::move(shut).Cancel();
      return fd;
    }
    if (errno == ECONNREFUSED) {
      if (!start) return absl::NotFoundError(absl::StrCat("keeper: none at ", name));
      COHORT_ASSIGN_OR_RETURN(const bool started, ListenAndStart(options, address));
      if (started && absl::Now() < deadline) continue;
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNRESET) {
      return absl::ErrnoToStatus(errno, "keeper: connect");
    }
    if (absl::Now() >= deadline) {
      return absl::UnavailableError(absl::StrCat("keeper: none could be reached at ", name, " in time"));
    }
    absl::SleepFor(keeper_policy::kRetryPause);
  }
}

}  // namespace cohort::runtime::elastic
