// What the command says where it does not understand its arguments.
#pragma once

#include <string>

#include "tools/cohort/command.h"

namespace cohort::tools {

// For CLI::App::failure_message. A word that no subcommand knows comes first, with the nearest that one does: what CLI11
// finds missing is then often what the word was meant for.
std::string UsageError(const CLI::App* app, const CLI::Error& error);

}  // namespace cohort::tools
