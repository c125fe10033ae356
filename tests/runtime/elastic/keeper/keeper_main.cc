// A keeper's process, for tests.
#include <cstdio>
#include <string>
#include <vector>

#include "runtime/elastic/keeper/serve.h"

int main(int argc, char** argv) {
  const absl::Status status =
      cohort::runtime::elastic::ServeKeeper(std::vector<std::string>(argv + 1, argv + argc));
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return status.ok() ? 0 : 1;
}
