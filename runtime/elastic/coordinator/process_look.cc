#include "runtime/elastic/coordinator/process_look.h"

#include <signal.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"

namespace cohort::cluster {

v1::ProcessState LookAtProcess(int64_t pid) {
  if (pid <= 0) return v1::PROCESS_STATE_UNSPECIFIED;
  if (kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) return v1::PROCESS_STATE_GONE;
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  // The state follows the name, which is in brackets and may hold anything.
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos || name_end + 2 >= text.size()) return v1::PROCESS_STATE_UNSPECIFIED;
  switch (text[name_end + 2]) {
    case 'Z':
    case 'X':
      return v1::PROCESS_STATE_GONE;
    case 'T':
    case 't':
      return v1::PROCESS_STATE_STOPPED;
    default:
      return v1::PROCESS_STATE_RUNS;
  }
}

}  // namespace cohort::cluster
