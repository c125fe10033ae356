// The subcommands of `cohort bench`: a file each.
#pragma once

#include "CLI/CLI.hpp"
#include "tools/cohort/command.h"

namespace cohort::tools {

void AddBenchTrainStep(CLI::App& bench, const Selected& selected);
void AddBenchDecode(CLI::App& bench, const Selected& selected);
void AddBenchServe(CLI::App& bench, const Selected& selected);
void AddBenchCollectives(CLI::App& bench, const Selected& selected);
void AddBenchTransfer(CLI::App& bench, const Selected& selected);
void AddBenchTokens(CLI::App& bench, const Selected& selected);
void AddBenchAttention(CLI::App& bench, const Selected& selected);
void AddBenchHybrid(CLI::App& bench, const Selected& selected);
void AddBenchPipeline(CLI::App& bench, const Selected& selected);
void AddBenchDatatype(CLI::App& bench, const Selected& selected);
void AddBenchCheckpoint(CLI::App& bench, const Selected& selected);
void AddBenchCoordinator(CLI::App& bench, const Selected& selected);
void AddBenchFaults(CLI::App& bench, const Selected& selected);
void AddBenchSnapshot(CLI::App& bench, const Selected& selected);

}  // namespace cohort::tools
