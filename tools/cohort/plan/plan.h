// The subcommands of `cohort plan`: a file each.
#pragma once

#include "CLI/CLI.hpp"
#include "tools/cohort/command.h"

namespace cohort::tools {

void AddPlanTopology(CLI::App& plan, const Selected& selected);
void AddPlanCollectives(CLI::App& plan, const Selected& selected);
void AddPlanPipeline(CLI::App& plan, const Selected& selected);
void AddPlanMesh(CLI::App& plan, const Selected& selected);
void AddPlanReshard(CLI::App& plan, const Selected& selected);
void AddPlanChange(CLI::App& plan, const Selected& selected);

}  // namespace cohort::tools
