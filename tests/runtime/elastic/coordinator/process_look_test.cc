#include "runtime/elastic/coordinator/process_look.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cohort::cluster {
namespace {

TEST(ProcessLook, TellsWhatHasBecomeOfAProcess) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    pause();
    _exit(0);
  }
  EXPECT_EQ(LookAtProcess(child), v1::PROCESS_STATE_RUNS);
  int status = 0;
  ASSERT_EQ(kill(child, SIGSTOP), 0);
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  EXPECT_EQ(LookAtProcess(child), v1::PROCESS_STATE_STOPPED);
  ASSERT_EQ(kill(child, SIGKILL), 0);
  siginfo_t info = {};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(LookAtProcess(child), v1::PROCESS_STATE_GONE) << "nobody has waited for it yet";
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(LookAtProcess(child), v1::PROCESS_STATE_GONE);
  EXPECT_EQ(LookAtProcess(0), v1::PROCESS_STATE_UNSPECIFIED);
}

}  // namespace
}  // namespace cohort::cluster
