#include "serving/serve.h"

#include <gtest/gtest.h>
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/collectives/over_device.h"
#include "serving/client.h"
#include "tests/runtime/device/far_device.h"
#include "tests/serving/small_decoder.h"
#include "tests/serving/test_tokenizer.h"
#include "tests/support/ranks.h"

namespace cohort::serving {
namespace {

// The file's name puts these before all tests that use gRPC in this process, which must not fork after that.

// The whole of `cohort serve` on two ranks: a model with experts on both, requests over gRPC, and the
// word to stop. The request that runs then is finished, and both ranks end with OK.
void ServeAndDrain(runtime::Device& (*device)()) {
  testing::RunRanks(2, [&](comm::Communicator& communicator) {
    auto shared = std::shared_ptr<comm::Communicator>(&communicator, [](comm::Communicator*) {});
    auto over_device = runtime::OverDevice(device(), shared);
    ASSERT_TRUE(over_device.ok()) << over_device.status();
    const auto decoder =
        SmallDecoder("mixtral", moe::ExpertGroup(shared, /*apart=*/false, *over_device), device());
    ASSERT_NE(decoder, nullptr);
    ServeOptions options;
    options.model_name = "small";
    options.server.address = "127.0.0.1:0";
    options.metrics_address = "127.0.0.1:0";
    options.engine.heartbeat = absl::Milliseconds(100);
    std::atomic<bool> stop = false;
    options.should_stop = [&stop] { return stop.load(); };
    std::thread client_thread;
    options.on_ready = [&](int port, int metrics_port) {
      EXPECT_GT(port, 0);
      EXPECT_GT(metrics_port, 0);
      client_thread = std::thread([port, &stop] {
        auto client = *Client::Create(absl::StrCat("127.0.0.1:", port));
        const absl::Time deadline = absl::Now() + absl::Seconds(20);
        const auto info = client->GetModelInfo(deadline);
        ASSERT_TRUE(info.ok()) << info.status();
        EXPECT_EQ(info->model_type(), "mixtral");
        EXPECT_EQ(info->ranks(), 2);
        EXPECT_EQ(info->num_experts(), 4);
        v1::GenerateRequest request;
        request.set_text("hello");
        request.mutable_stopping()->set_ignore_eos(true);
        const auto answer = client->GenerateStream(request, deadline, [&](const auto&) {
          stop = true;  // while it runs
          return true;
        });
        ASSERT_TRUE(answer.ok()) << answer.status();
        EXPECT_EQ(answer->usage().completion_tokens(), 64 - 6);  // the context is full
        EXPECT_EQ(answer->completions(0).finish_reason(), v1::FINISH_REASON_LENGTH);
      });
    };
    EXPECT_EQ(Serve(options, *decoder, ByteTokenizer(), communicator), absl::OkStatus());
    if (client_thread.joinable()) client_thread.join();
  });
}

TEST(ServeTest, TwoRanksServeAndDrain) { ServeAndDrain(runtime::CpuDevice); }

TEST(ServeTest, TwoRanksOnDevicesServeAndDrain) { ServeAndDrain(runtime::FarDevice); }

// Rank 0 cannot listen: the other is let go at once, not after its timeout.
TEST(ServeTest, ABadAddressEndsAllRanks) {
  testing::RunRanks(2, [](comm::Communicator& communicator) {
    const auto decoder = SmallDecoder("llama");
    ServeOptions options;
    options.server.address = "not an address";
    options.should_stop = [] { return false; };
    const absl::Time begin = absl::Now();
    const absl::Status status = Serve(options, *decoder, ByteTokenizer(), communicator);
    EXPECT_EQ(status.ok(), communicator.rank() == 1) << status;
    EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  });
}

}  // namespace
}  // namespace cohort::serving
