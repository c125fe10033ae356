// cohort: train, serve and measure language models over any number of ranks.
#include <unistd.h>

#include <array>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <utility>

#include "comm/rendezvous.h"
#include "tools/cohort/command.h"
#include "tools/cohort/own_command.h"
#include "tools/cohort/usage_error.h"
#include "tools/cohort/world.h"

namespace {

using Add = void (*)(CLI::App&, const cohort::tools::Selected&);
constexpr Add kCommands[] = {
    cohort::tools::AddData,     cohort::tools::AddTrain,       cohort::tools::AddGenerate,
    cohort::tools::AddServe,    cohort::tools::AddBench,       cohort::tools::AddPlan,
    cohort::tools::AddConvert,  cohort::tools::AddCoordinator, cohort::tools::AddKeeper,
    cohort::tools::AddRecorder, cohort::tools::AddTop,         cohort::tools::AddHealth};

int Run(int argc, char** argv) {
  CLI::App app("Trains and serves dense and mixture-of-experts language models on any number of ranks.",
               "cohort");
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "Show the help of every subcommand");
  app.set_version_flag("--version", COHORT_VERSION);
  app.failure_message(cohort::tools::UsageError);
  cohort::tools::CommandRun action;
  for (Add add : kCommands) {
    add(app, [&action](cohort::tools::CommandRun chosen) { action = std::move(chosen); });
  }
  // A wrong argument is the same on all ranks of a job: one of them says so.
  const int rank = cohort::comm::LaunchedRank();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // also --help and --version, which are no errors
    std::ostream nowhere(nullptr);
    return app.exit(error, rank == 0 ? std::cout : nowhere, rank == 0 ? std::cerr : nowhere) == 0 ? 0 : 1;
  }
  const absl::Status status = action();
  if (status.ok()) return 0;
  const bool by_all = absl::IsInvalidArgument(status);
  if (rank == 0 || !by_all) {
    const std::string who = cohort::comm::LaunchedByMpi() ? "rank " + std::to_string(rank) + ": " : "";
    std::fprintf(stderr, "cohort: %s%s\n", who.c_str(), std::string(status.message()).c_str());
  }
  if (by_all || !cohort::comm::LaunchedByMpi()) return 1;
  // Other ranks may be gone or stuck, and MPI_Finalize, which a return would lead to, waits for them.
  std::fflush(nullptr);
  _exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  cohort::tools::NameOwnProcess();
  try {
    return Run(argc, argv);
  } catch (const std::exception& error) {  // none is ours: memory that the system refused, above all
    std::fprintf(stderr, "cohort: %s\n", error.what());
    return 1;
  }
}
