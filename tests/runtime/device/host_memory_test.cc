#include "runtime/device/host_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace cohort::runtime {
namespace {

// A tree of files in the place of /proc and /sys.
class HostMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    root_ = std::filesystem::path(::testing::TempDir()) / (std::string("host-memory-") + info->name());
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  int64_t Free() const { return FreeHostMemoryUnder(root_.string()); }

  std::filesystem::path root_;
};

TEST_F(HostMemoryTest, WithoutFilesNothingIsKnown) { EXPECT_EQ(Free(), INT64_MAX); }

TEST_F(HostMemoryTest, TheMachinesOwn) {
  Write("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:    7000 kB\n");
  EXPECT_EQ(Free(), 7000 << 10);
}

TEST_F(HostMemoryTest, TheTightestGroupOfVersionTwo) {
  Write("proc/meminfo", "MemAvailable: 70000 kB\n");
  Write("proc/self/cgroup", "0::/jobs/one\n");
  Write("sys/fs/cgroup/jobs/one/memory.max", "max\n");
  Write("sys/fs/cgroup/jobs/one/memory.current", "5000000\n");
  Write("sys/fs/cgroup/jobs/memory.max", "10000000\n");
  Write("sys/fs/cgroup/jobs/memory.current", "9000000\n");
  Write("sys/fs/cgroup/jobs/memory.stat", "anon 1\ninactive_file 500000\n");
  EXPECT_EQ(Free(), 1500000);
}

TEST_F(HostMemoryTest, VersionOneAndAFullGroup) {
  Write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/box\n");
  Write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "4096\n");
  Write("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "9999\n");
  EXPECT_EQ(Free(), 0);
}

TEST_F(HostMemoryTest, BrokenFilesLimitNothing) {
  Write("proc/meminfo", "MemAvailable: much\n");
  Write("proc/self/cgroup", "nonsense\n0::/x\n");
  Write("sys/fs/cgroup/x/memory.max", "?");
  EXPECT_EQ(Free(), INT64_MAX);
}

}  // namespace
}  // namespace cohort::runtime
