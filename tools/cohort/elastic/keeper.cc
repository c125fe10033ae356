// cohort keeper: the process that holds the snapshots of a host's ranks. Ranks of elastic jobs start it; it is of no use
// to people, and not in the list of subcommands.
#include <memory>
#include <string>
#include <vector>

#include "runtime/elastic/keeper/serve.h"
#include "tools/cohort/command.h"

namespace cohort::tools {

void AddKeeper(CLI::App& app, const Selected& selected) {
  CLI::App* keeper = app.add_subcommand("keeper", "Holds the snapshots of a host's ranks; they start it");
  keeper->group("");
  auto arguments = std::make_shared<std::vector<std::string>>();
  keeper->add_option("arguments", *arguments, "What the rank that starts it says");
  keeper->callback([=] { selected([arguments] { return runtime::elastic::ServeKeeper(*arguments); }); });
}

}  // namespace cohort::tools
