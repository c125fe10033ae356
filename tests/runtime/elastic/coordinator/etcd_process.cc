#include "tests/runtime/elastic/coordinator/etcd_process.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/elastic/coordinator/etcd.h"

namespace cohort::cluster {
namespace {

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  const bool bound = bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  close(fd);
  return bound ? ntohs(address.sin_port) : 0;
}

}  // namespace

std::unique_ptr<EtcdProcess> EtcdProcess::Start() {
  auto etcd = std::make_unique<EtcdProcess>();
  etcd->address_ = absl::StrCat("127.0.0.1:", FreePort());
  const std::string client = "http://" + etcd->address_, peer = absl::StrCat("http://127.0.0.1:", FreePort());
  std::vector<std::string> words = {"etcd",
                                    "--name=test",
                                    "--data-dir=" + etcd->folder_.path(),
                                    "--listen-client-urls=" + client,
                                    "--advertise-client-urls=" + client,
                                    "--listen-peer-urls=" + peer,
                                    "--initial-advertise-peer-urls=" + peer,
                                    "--initial-cluster=test=" + peer,
                                    "--log-level=error"};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const std::string log = etcd->folder_.Path("log");
  etcd->pid_ = fork();
  if (etcd->pid_ == 0) {
    const int out = open(log.c_str(), O_WRONLY | O_CREAT, 0666);
    dup2(out, 1);
    dup2(out, 2);
    execvp("etcd", arguments.data());
    _exit(127);
  }
  Etcd probe({etcd->address_});
  for (const absl::Time end = absl::Now() + absl::Seconds(20); absl::Now() < end;) {
    if (waitpid(etcd->pid_, nullptr, WNOHANG) != 0) {
      etcd->pid_ = -1;
      return nullptr;
    }
    if (probe.Get("anything").ok()) return etcd;
    absl::SleepFor(absl::Milliseconds(50));
  }
  return nullptr;
}

EtcdProcess::~EtcdProcess() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void EtcdProcess::Pause() {
  kill(pid_, SIGSTOP);
  waitpid(pid_, nullptr, WUNTRACED);  // all of its threads
}
void EtcdProcess::Resume() { kill(pid_, SIGCONT); }

}  // namespace cohort::cluster
