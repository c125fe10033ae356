// cohort keeper: the process of a host that holds its ranks' snapshots. Ranks start it; nobody else has to.
#include <memory>
#include <string>
#include <vector>

#include "runtime/elastic/keeper/serve.h"
#include "tools/cohort/command.h"

namespace cohort::tools {

void AddKeeper(CLI::App& app, const Selected& selected) {
  CLI::App* keeper = app.add_subcommand("keeper", "");
  keeper->group("");  // not shown
  const auto arguments = std::make_shared<std::vector<std::string>>();
  keeper->add_option("arguments", *arguments)->expected(1, -1);
  keeper->callback([=] { selected([=] { return runtime::elastic::ServeKeeper(*arguments); }); });
}

}  // namespace cohort::tools
