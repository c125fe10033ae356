#include "tools/cohort/elastic/own_coordinator.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/topology.h"
#include "runtime/file.h"
#include "tools/cohort/own_command.h"
#include "tools/cohort/policy.h"

extern char** environ;

namespace cohort::tools {

absl::Status StartCoordinator(const std::string& folder, const std::string& address_file,
                              bool several_hosts) {
  const std::string log = folder + "/coordinator.log";
  COHORT_RETURN_IF_ERROR(runtime::MakeFolderOf(log));
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&files, 1, 2);
  posix_spawn_file_actions_addclosefrom_np(&files, 3);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  std::vector<std::string> words = {OwnCommand(),     "coordinator",
                                    "--listen",       several_hosts ? "0.0.0.0:0" : "127.0.0.1:0",
                                    "--state",        folder,
                                    "--address-file", address_file,
                                    "--idle-life",    absl::FormatDuration(policy::kCoordinatorIdleLife)};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = -1;
  const int failed = posix_spawn(&child, argv[0], &files, &attributes, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  if (failed != 0) return runtime::ErrnoStatus(failed, "run", words[0]);
  return runtime::WriteFileDurably(address_file + ".pid",
                                   absl::StrCat(child, " ", comm::HostIdentity(), "\n"));
}

pid_t CoordinatorHere(const std::string& address_file) {
  const auto text = runtime::ReadFile(address_file + ".pid");
  if (!text.ok()) return 0;
  const std::vector<std::string> words = absl::StrSplit(absl::StripSuffix(*text, "\n"), ' ');
  int pid = 0;
  if (words.size() != 2 || words[1] != comm::HostIdentity() || !absl::SimpleAtoi(words[0], &pid)) return 0;
  return pid;
}

absl::Status RestartCoordinator(const std::string& folder, const std::string& address_file,
                                bool several_hosts) {
  // Of the ranks of its host one does it.
  const int lock = open((address_file + ".pid").c_str(), O_RDONLY | O_CLOEXEC);
  if (lock < 0) return absl::OkStatus();
  absl::Status status;
  if (flock(lock, LOCK_EX | LOCK_NB) == 0) {
    const pid_t pid = CoordinatorHere(address_file);
    // Where it was this process's child, it stays a zombie until it is looked at.
    if (pid > 0) (void)waitpid(pid, nullptr, WNOHANG);
    // One of another host is not ours to judge; one that lives is only slow.
    if (pid > 0 && kill(pid, 0) != 0) status = StartCoordinator(folder, address_file, several_hosts);
  }
  close(lock);
  return status;
}

absl::StatusOr<std::string> CoordinatorAddress(const std::string& address_or_run) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::is_directory(address_or_run, error)) return address_or_run;
  const fs::path folder = fs::path(address_or_run) / "elastic";
  std::optional<std::pair<fs::file_time_type, std::string>> newest;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    // Beside an address lies the pid, and, while it is written, a part of it.
    if (!absl::StartsWith(name, "address-") || absl::EndsWith(name, ".pid") ||
        absl::EndsWith(name, ".partial"))
      continue;
    const fs::file_time_type when = entry.last_write_time(error);
    if (!error && (!newest || when > newest->first)) newest = {when, entry.path().string()};
  }
  if (!newest) {
    return absl::NotFoundError(absl::StrCat(address_or_run, " is not the output of an elastic training: no ",
                                            folder.string(), "/address-* is there; give HOST:PORT"));
  }
  COHORT_ASSIGN_OR_RETURN(const std::string text, runtime::ReadFile(newest->second));
  return std::string(absl::StripSuffix(text, "\n"));
}

absl::StatusOr<std::string> WaitForAddress(const std::string& address_file, absl::Time deadline) {
  for (;;) {
    const auto text = runtime::ReadFile(address_file);
    if (text.ok() && !text->empty()) return std::string(absl::StripSuffix(*text, "\n"));
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("no coordinator has written its address to ", address_file,
                       ": is that folder seen by all ranks? coordinator.log there says what it did"));
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
}

}  // namespace cohort::tools
