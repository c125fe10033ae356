// The flags of a generation request, as `cohort generate` has them.
#pragma once

#include <memory>

#include "CLI/CLI.hpp"
#include "cohort/v1/inference.pb.h"

namespace cohort::tools {

// Adds --prompt, --max-tokens, --temperature and so on. `request` has what the user said once the command
// line is parsed; what was not said stays unset, so the service's defaults hold.
void AddGenerationFlags(CLI::App& app, const std::shared_ptr<v1::GenerateRequest>& request);

}  // namespace cohort::tools
