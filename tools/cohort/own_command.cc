#include "tools/cohort/own_command.h"

#include <sys/prctl.h>

#include <cstdlib>
#include <filesystem>

namespace cohort::tools {

namespace {

// Set by bin/cohort of the bundle (tools/bundle), to its own path: its loader is the program that runs, for the kernel, so
// the link names that.
const char* Wrapper() { return std::getenv("COHORT_COMMAND"); }

}  // namespace

std::string OwnCommand() {
  if (const char* wrapper = Wrapper(); wrapper != nullptr) return wrapper;
  std::error_code error;
  const std::string program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  return program.empty() ? "/proc/self/exe" : program;  // where it cannot be read, whoever runs it says so
}

void NameOwnProcess() {
  if (Wrapper() != nullptr) prctl(PR_SET_NAME, "cohort");
}

}  // namespace cohort::tools
