// Links between the far devices of processes: a stand-in for NCCL over memory that no host reaches.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "comm/nccl/device_communicator.h"
#include "tests/comm/nccl/fake_nccl.h"
#include "tests/runtime/device/far_device.h"
#include "tests/support/ranks.h"

namespace cohort::runtime {

// What a process does before it makes its model: the links, for as long as that lives. `folder`: all ranks see it. `calls`
// counts what went over them.
inline std::function<std::shared_ptr<void>()> FakeLinks(std::string folder,
                                                        cohort::testing::SharedCounter& calls) {
  return [folder = std::move(folder), &calls] {
    auto fake = std::shared_ptr<comm::nccl::FakeNccl>(new comm::nccl::FakeNccl(folder, NearAddress),
                                                      [&calls](comm::nccl::FakeNccl* last) {
                                                        calls.Add(last->calls());
                                                        SetConnectFar(nullptr);
                                                        delete last;
                                                      });
    // One queue for all groups, as a device has it: ranks that do not go by one order wait for each other for ever.
    const comm::nccl::Stream stream = *fake->CreateStream();
    SetConnectFar([fake = fake.get(), stream](std::shared_ptr<comm::Communicator> host)
                      -> absl::StatusOr<std::unique_ptr<comm::Communicator>> {
      return comm::nccl::DeviceCommunicator::Create(std::move(host), {.stream = stream}, *fake);
    });
    return fake;
  };
}

}  // namespace cohort::runtime
