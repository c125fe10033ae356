// Real processes with a device communicator each, over a fake of NCCL.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/nccl/device_communicator.h"
#include "tests/comm/nccl/fake_nccl.h"
#include "tests/support/ranks.h"

namespace cohort::comm::nccl {

// What a rank of a test has.
struct Rig {
  std::string folder;
  std::unique_ptr<FakeNccl> fake;
  std::shared_ptr<Communicator> base;
  DeviceOptions options;
  std::unique_ptr<DeviceCommunicator> device;

  int rank() const { return base->rank(); }
  int size() const { return base->size(); }
};

struct RigOptions {
  // By rank, its host; empty: all on one. As declared: messages go through shared memory all the same.
  std::vector<int> hosts = {};
  std::optional<Way> way = std::nullopt;
  size_t piece_bytes = 64;
  absl::Duration timeout = absl::Seconds(20);
  std::vector<int> victims = {};
  bool create = true;  // the device communicator
};

inline void RunDeviceRanks(int size, const RigOptions& wanted, const std::function<void(Rig&)>& body) {
  cohort::testing::RankOptions options;
  options.victims = wanted.victims;
  cohort::testing::RunProcesses(
      size,
      [&](int rank, int ranks, const std::string& folder) {
        CommunicatorOptions how{.timeout = wanted.timeout};
        if (!wanted.hosts.empty()) {
          how.topology = absl::StrCat(folder, "/topology-", rank);
          std::ofstream file(how.topology);
          file << "cohort-topology 1\n";
          for (int peer = 0; peer < ranks; ++peer)
            file << "rank " << peer << " host " << wanted.hosts[peer] << "\n";
        }
        Rig rig;
        rig.folder = folder;
        rig.fake = std::make_unique<FakeNccl>(folder);
        auto base = Communicator::Create(FileRendezvous(folder + "/meet", rank, ranks), how);
        ASSERT_TRUE(base.ok()) << base.status();
        rig.base = *std::move(base);
        rig.options.stream = *rig.fake->CreateStream();
        rig.options.way = wanted.way;
        rig.options.piece_bytes = wanted.piece_bytes;
        if (wanted.create) {
          auto device = DeviceCommunicator::Create(rig.base, rig.options, *rig.fake);
          ASSERT_TRUE(device.ok()) << device.status();
          rig.device = *std::move(device);
          // What a test does to one rank is not to meet another that is still being created.
          ASSERT_EQ(rig.base->Barrier().Wait(), absl::OkStatus());
        }
        body(rig);
        rig.device.reset();
      },
      options);
}

}  // namespace cohort::comm::nccl
