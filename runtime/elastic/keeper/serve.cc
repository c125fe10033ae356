#include "runtime/elastic/keeper/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/device/host_memory.h"
#include "runtime/elastic/keeper/holdings.h"
#include "runtime/elastic/keeper/policy.h"
#include "runtime/elastic/keeper/wire.h"

namespace cohort::runtime::elastic {
namespace {

struct Client {
  int pid = 0;
  // Readable once the process has ended, though a child of its may still hold the socket. -1 where it has already, or
  // the system has none: then the socket alone tells.
  int pidfd = -1;
};

class Server {
 public:
  Server(int listening, absl::Duration idle_life)
      : listening_(listening),
        idle_life_(idle_life),
        // Not a number that an earlier keeper of this job has given.
        holdings_(FreeHostMemory, static_cast<uint64_t>(absl::ToUnixMicros(absl::Now()))) {}
  ~Server() {
    while (!clients_.empty()) HangUp(clients_.begin()->first);
    close(listening_);
  }

  absl::Status Run() {
    absl::Time alone_since = absl::Now();
    while (true) {
      std::vector<pollfd> entries = {{listening_, POLLIN, 0}};
      std::vector<int> sockets = {-1};
      for (const auto& [socket, client] : clients_) {
        entries.push_back({socket, POLLIN, 0});
        entries.push_back({client.pidfd, POLLIN, 0});  // negative ones are passed over
        sockets.insert(sockets.end(), 2, socket);
      }
      int64_t wait = -1;
      if (clients_.empty()) {
        wait = absl::ToInt64Milliseconds(alone_since + idle_life_ - absl::Now()) + 1;
        if (wait <= 0) return absl::OkStatus();
      }
      if (poll(entries.data(), entries.size(), static_cast<int>(std::min<int64_t>(wait, 1 << 30))) < 0 &&
          errno != EINTR) {
        return absl::ErrnoToStatus(errno, "keeper: poll");
      }
      if (entries[0].revents != 0) Accept();
      for (size_t i = 1; i < entries.size(); ++i) {
        if (entries[i].revents == 0 || clients_.count(sockets[i]) == 0) continue;
        // What the process sent before it ended is in its socket, which is looked at first.
        if (i % 2 == 0 ? !Ended(sockets[i]) : !Serve(sockets[i])) continue;
        if (ended_) return absl::OkStatus();
        HangUp(sockets[i]);
        if (clients_.empty()) alone_since = absl::Now();
      }
    }
  }

 private:
  void Accept() {
    const int socket = accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0) return;
    ucred peer = {};
    socklen_t size = sizeof(peer);
    // Abstract names have no permissions: whoever is not this user is sent away here.
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != geteuid() ||
        clients_.size() >= keeper_policy::kMostClients) {
      close(socket);
      return;
    }
    clients_[socket] = {peer.pid, static_cast<int>(syscall(SYS_pidfd_open, peer.pid, 0))};
  }

  bool Ended(int socket) const {
    pollfd entry{clients_.at(socket).pidfd, POLLIN, 0};
    return poll(&entry, 1, 0) == 1;
  }

  // One message of a client. True where it is to be hung up on, or the keeper has ended.
  bool Serve(int socket) {
    int fd = -1;
    const absl::StatusOr<std::string> message = keeper_wire::Receive(socket, &fd);
    if (!message.ok()) return true;
    const Holdings::Answer answer = holdings_.Handle(socket, clients_.at(socket).pid, *message, fd);
    ended_ = answer.end;
    const bool sent = !answer.hang_up && keeper_wire::Send(socket, answer.message, answer.fd).ok();
    if (answer.fd >= 0) close(answer.fd);
    return !sent || ended_;
  }

  void HangUp(int socket) {
    holdings_.Gone(socket);
    if (const int pidfd = clients_.at(socket).pidfd; pidfd >= 0) close(pidfd);
    clients_.erase(socket);
    close(socket);
  }

  int listening_;
  absl::Duration idle_life_;
  Holdings holdings_;
  std::map<int, Client> clients_;  // by socket
  bool ended_ = false;
};

}  // namespace

absl::Status ServeKeeper(const std::vector<std::string>& arguments) {
  int listening = -1;
  int64_t idle_ms = 0;
  if (arguments.size() != 2 || !absl::SimpleAtoi(arguments[0], &listening) ||
      !absl::SimpleAtoi(arguments[1], &idle_ms)) {
    return absl::InvalidArgumentError("keeper: it is started by the ranks of a job, not by hand");
  }
  int is_listening = 0;
  socklen_t size = sizeof(is_listening);
  if (getsockopt(listening, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &size) != 0 || is_listening == 0) {
    return absl::InvalidArgumentError(absl::StrCat("keeper: file ", listening, " is not a listening socket"));
  }
  const pid_t child = fork();
  if (child < 0) return absl::ErrnoToStatus(errno, "keeper: fork");
  if (child > 0) return absl::OkStatus();

  // Not with "cohort" in it: who signals the ranks by their name (pkill) means the ranks.
  prctl(PR_SET_NAME, "snapshot-keeper");
  // What ends a job's ranks through their terminal does not end it.
  for (const int signal_number : {SIGHUP, SIGINT, SIGQUIT, SIGPIPE}) signal(signal_number, SIG_IGN);
  if (chdir("/") != 0) return absl::ErrnoToStatus(errno, "keeper: chdir");
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  fcntl(listening, F_SETFD, FD_CLOEXEC);
  fcntl(listening, F_SETFL, fcntl(listening, F_GETFL) | O_NONBLOCK);
  return Server(listening, absl::Milliseconds(idle_ms)).Run();
}

}  // namespace cohort::runtime::elastic
