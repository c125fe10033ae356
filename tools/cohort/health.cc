// cohort health: whether a server, or a coordinator, answers and is ready: for what watches over containers and jobs.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "serving/client.h"
#include "tools/cohort/command.h"

namespace cohort::tools {
namespace {

struct HealthFlags {
  std::string server;
  double timeout_seconds = 3;
  serving::ClientOptions client;
};

absl::Status Health(const HealthFlags& flags) {
  const absl::Time deadline = absl::Now() + absl::Seconds(flags.timeout_seconds);
  COHORT_ASSIGN_OR_RETURN(const auto client, serving::Client::Create(flags.server, flags.client));
  COHORT_RETURN_IF_ERROR(client->WaitUntilConnected(deadline));
  COHORT_ASSIGN_OR_RETURN(const bool serving, client->Healthy("", deadline));
  if (!serving) return absl::UnavailableError(absl::StrCat(flags.server, " answers that it does not serve"));
  std::puts("serving");
  return absl::OkStatus();
}

}  // namespace

void AddHealth(CLI::App& app, const Selected& selected) {
  CLI::App* health = app.add_subcommand(
      "health", "Ask a server or a coordinator whether it serves: exit code 0, or 1 and why not");
  const auto flags = std::make_shared<HealthFlags>();
  health->add_option("--server", flags->server, "Its address and port")->required();
  health->add_option("--timeout", flags->timeout_seconds, "Seconds in which it must answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  health->add_option("--tls-roots", flags->client.tls_roots, "PEM file of certificates to trust");
  health->callback([=] { selected([=] { return Health(*flags); }); });
}

}  // namespace cohort::tools
