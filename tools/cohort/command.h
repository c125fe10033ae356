// The subcommands of `cohort`: one file each, one row each in the table of main.cc.
#pragma once

#include <functional>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"

namespace cohort::tools {

// What runs once the command line is understood. The status becomes the exit code: 0, or 1 with its message.
using CommandRun = std::function<absl::Status()>;

// Adds the subcommand with its flags to `app` and calls `selected` with it when the user chose it.
using Selected = std::function<void(CommandRun)>;

void AddData(CLI::App& app, const Selected& selected);
void AddTrain(CLI::App& app, const Selected& selected);
void AddGenerate(CLI::App& app, const Selected& selected);
void AddServe(CLI::App& app, const Selected& selected);
void AddBench(CLI::App& app, const Selected& selected);
void AddPlan(CLI::App& app, const Selected& selected);
void AddConvert(CLI::App& app, const Selected& selected);
void AddCoordinator(CLI::App& app, const Selected& selected);
void AddKeeper(CLI::App& app, const Selected& selected);
void AddRecorder(CLI::App& app, const Selected& selected);
void AddTop(CLI::App& app, const Selected& selected);
void AddHealth(CLI::App& app, const Selected& selected);

}  // namespace cohort::tools
