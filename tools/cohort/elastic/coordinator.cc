// cohort coordinator: members, epochs and events of an elastic job, whose state outlives this process.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/coordinator.h"
#include "runtime/elastic/coordinator/journal.h"
#include "runtime/file.h"
#include "runtime/service/listen_error.h"
#include "tools/cohort/command.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

struct CoordinatorFlags {
  cluster::CoordinatorOptions options;
  std::string lease = "2s", idle_life = "0", address_file;
};

std::string HostOf(const std::string& address) { return address.substr(0, address.rfind(':')); }

// What clients connect to: the port that was bound, of this host where all its addresses were asked for.
std::string ReachedAt(const std::string& listen, int port) {
  std::string host = HostOf(listen);
  if (host == "0.0.0.0" || host == "[::]" || host == "*") {
    char name[256] = {};
    gethostname(name, sizeof(name) - 1);
    host = name;
  }
  return absl::StrCat(host, ":", port);
}

// Clients know the address of the coordinator before this one: where any port would do, its port is taken again if it
// is free.
std::string FormerAddress(const std::string& listen, const std::string& address_file) {
  int port = 0;
  if (!absl::SimpleAtoi(listen.substr(listen.rfind(':') + 1), &port) || port != 0) return listen;
  const absl::StatusOr<std::string> former = runtime::ReadFile(address_file);
  if (!former.ok()) return listen;
  const std::string text(absl::StripSuffix(*former, "\n"));
  if (text.rfind(':') == std::string::npos || !absl::SimpleAtoi(text.substr(text.rfind(':') + 1), &port) ||
      ReachedAt(listen, port) != text) {
    return listen;
  }
  const std::string again = absl::StrCat(HostOf(listen), ":", port);
  return runtime::WhyNotListen(again).empty() ? again : listen;
}

absl::Status WriteAddress(const std::string& file, const std::string& address) {
  // Renamed into place, so that whoever waits for the file never reads half of it.
  const std::string partial = file + ".partial";
  COHORT_RETURN_IF_ERROR(runtime::MakeFolderOf(file));
  COHORT_RETURN_IF_ERROR(runtime::WriteFileDurably(partial, address + "\n"));
  std::error_code error;
  std::filesystem::rename(partial, file, error);
  if (error) return runtime::ErrnoStatus(error.value(), "write", file);
  return absl::OkStatus();
}

absl::StatusOr<absl::Duration> DurationOf(const char* flag, const std::string& text) {
  absl::Duration duration;
  if (absl::ParseDuration(text, &duration) && duration >= absl::ZeroDuration()) return duration;
  return absl::InvalidArgumentError(absl::StrCat(flag, ": '", text, "' is no duration; write 2s or 500ms"));
}

// Until it is told to stop, or nobody has needed it for so long (0: for ever).
absl::Status Serve(const cluster::Coordinator& coordinator, absl::Duration idle_life,
                   const std::atomic<bool>& stop) {
  absl::Duration idle;  // while this process ran: it may be stopped as well
  for (absl::Time before = absl::Now(); !stop.load(); absl::SleepFor(cluster::policy::kSupervisionInterval)) {
    COHORT_RETURN_IF_ERROR(coordinator.health());
    const absl::Time now = absl::Now();
    idle += std::clamp(now - before, absl::ZeroDuration(), absl::Seconds(1));
    before = now;
    if (coordinator.live_members() > 0) idle = absl::ZeroDuration();
    if (idle_life > absl::ZeroDuration() && idle > idle_life) {
      std::printf("no member for %s: ending\n", absl::FormatDuration(idle_life).c_str());
      return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

absl::Status Coordinate(CoordinatorFlags flags) {
  const std::atomic<bool>* stop = StopRequested();  // before the first thread
  cluster::CoordinatorOptions& options = flags.options;
  COHORT_ASSIGN_OR_RETURN(options.lease, DurationOf("--lease", flags.lease));
  COHORT_ASSIGN_OR_RETURN(const absl::Duration idle_life, DurationOf("--idle-life", flags.idle_life));
  if (options.listen.rfind(':') == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen: '", options.listen, "' has no port; write HOST:PORT"));
  }
  std::string address_file = flags.address_file;
  if (address_file.empty() && cluster::IsFolder(options.state)) address_file = options.state + "/address";
  if (!address_file.empty()) options.listen = FormerAddress(options.listen, address_file);
  COHORT_ASSIGN_OR_RETURN(auto coordinator, cluster::Coordinator::Start(options));
  const std::string address = ReachedAt(options.listen, coordinator->port());
  if (!address_file.empty()) COHORT_RETURN_IF_ERROR(WriteAddress(address_file, address));
  std::printf("coordinating on %s\n", address.c_str());
  if (coordinator->metrics_port() != 0) {
    std::printf("metrics on http://%s/metrics\n",
                ReachedAt(options.metrics, coordinator->metrics_port()).c_str());
  }
  std::fflush(stdout);
  return Serve(*coordinator, idle_life, *stop);
}

}  // namespace

void AddCoordinator(CLI::App& app, const Selected& selected) {
  CLI::App* coordinator = app.add_subcommand(
      "coordinator",
      "Keep the members, epochs and events of an elastic job; it may end and begin again at any time");
  const auto flags = std::make_shared<CoordinatorFlags>();
  coordinator
      ->add_option(
          "--listen", flags->options.listen,
          "Address and port; port 0: that of the coordinator before this one on the same folder, else any")
      ->capture_default_str();
  coordinator
      ->add_option("--state", flags->options.state,
                   "What outlives this process: a folder, or etcd://HOST:PORT[,HOST:PORT...]/PREFIX")
      ->required();
  coordinator->add_option("--metrics", flags->options.metrics,
                          "Address and port of the Prometheus endpoint. Default: none");
  coordinator->add_option("--lease", flags->lease, "A member that is not heard for so long counts as expired")
      ->capture_default_str();
  coordinator
      ->add_option("--idle-life", flags->idle_life, "End when no member has lived for so long; 0: never")
      ->capture_default_str();
  coordinator->add_option("--events", flags->options.events,
                          "Events as lines of JSON. Default: events.jsonl in the folder, none with etcd");
  coordinator->add_option("--address-file", flags->address_file,
                          "Write the bound address there once it answers. Default: address in the folder");
  coordinator->callback([=] { selected([=] { return Coordinate(*flags); }); });
}

}  // namespace cohort::tools
