// How this command starts itself anew: keepers and coordinators are it, too.
#pragma once

#include <string>

namespace cohort::tools {

// What to run for another process of this command, whatever PATH says.
std::string OwnCommand();

// A process of the bundle is a loader by its name: calls it what it is, for whoever looks at a list of processes.
void NameOwnProcess();

}  // namespace cohort::tools
