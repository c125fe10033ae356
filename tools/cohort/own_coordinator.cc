#include "tools/cohort/own_coordinator.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/topology.h"
#include "runtime/file.h"

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
  std::vector<std::string> words = {
      "/proc/self/exe", "coordinator", "--listen",       several_hosts ? "0.0.0.0:0" : "127.0.0.1:0",
      "--state",        folder,        "--address-file", address_file};
  std::error_code error;
  words[0] = std::filesystem::read_symlink("/proc/self/exe", error).string();
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
