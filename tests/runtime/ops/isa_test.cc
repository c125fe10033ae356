// The operations on every instruction set that this machine has, and on those below it.
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

// The level is read once in a process, so each takes one of its own.
TEST(OperationsIsaTest, EveryInstructionSetPasses) {
  if (std::getenv("COHORT_CPU_ISA") != nullptr)
    GTEST_SKIP() << "COHORT_CPU_ISA is set: this is one level's run";
  for (const std::string isa : {"portable", "avx512"}) {
    const std::string command = "COHORT_CPU_ISA=" + isa + " /proc/" + std::to_string(getpid()) +
                                "/exe --gtest_brief=1 --gtest_filter='Ops/Ops*/cpu:OpsFixed*'";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  }
}

}  // namespace
}  // namespace cohort::runtime
