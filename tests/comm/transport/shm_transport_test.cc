// What is the shared-memory transport's own: which bytes come out of lent pages, and that those that do not are right all
// the same. Both ends are in this process. That all operations work over it is shown by the other tests of the room.
#include "comm/transport/shm/shm_transport.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "comm/policy.h"
#include "comm/transport/shm/policy.h"

namespace cohort::comm::shm {
namespace {

constexpr size_t kLarge = 256 << 10;  // announced, and fits a pipe

// One end: it keeps what is announced until the test accepts it, and what its requests have ended with.
class End final : public TransportEvents, public RequestOwner {
 public:
  End(int rank, const char* single_copy = nullptr) {
    if (single_copy != nullptr) setenv("COHORT_SHM_SINGLE_COPY", single_copy, 1);
    auto made = ShmTransport::Create(rank, 2, this);
    unsetenv("COHORT_SHM_SINGLE_COPY");
    EXPECT_TRUE(made.ok()) << made.status();
    transport = *std::move(made);
  }

  void OnMessage(Transport&, int, const MessageHeader&, const std::byte*) override { ++messages; }
  void OnAnnouncement(Transport&, int, const MessageHeader& header) override {
    announced[header.key.step] = header;
  }
  void OnAbort(int, const MessageKey& key, const absl::Status& why) override {
    aborts[key.step] = why;
    if (cancels_on_abort != nullptr) transport->CancelSend(*std::exchange(cancels_on_abort, nullptr));
  }
  void OnPeerGone(int, bool left, absl::string_view) override {
    has_left = left;
    done_before = done;
  }
  void OnRequestDone(uint32_t token, const absl::Status& status) override { done[token] = status; }

  std::unique_ptr<ShmTransport> transport;
  std::map<uint32_t, MessageHeader> announced;  // by step
  std::map<uint32_t, absl::Status> aborts, done;
  bool has_left = false;                         // the other end,
  std::map<uint32_t, absl::Status> done_before;  // and what was done when that was heard
  SendRequest* cancels_on_abort = nullptr;
  int messages = 0;
};

std::vector<std::byte> Pattern(uint32_t number, size_t bytes) {
  std::vector<std::byte> pattern(bytes);
  for (size_t i = 0; i < bytes; ++i)
    pattern[i] = static_cast<std::byte>((i * 2654435761u >> 13) + 41 * number);
  return pattern;
}

class ShmTransportTest : public testing::Test {
 protected:
  void Connect(const char* receivers_single_copy = nullptr) {
    sender_ = std::make_unique<End>(0);
    receiver_ = std::make_unique<End>(1, receivers_single_copy);
    ASSERT_EQ(sender_->transport->Attach(1, receiver_->transport->Address()), absl::OkStatus());
    ASSERT_EQ(receiver_->transport->Attach(0, sender_->transport->Address()), absl::OkStatus());
  }

  // A message under way: its number is its step and both tokens.
  struct Message {
    std::vector<std::byte> from, to;
    SendRequest send;
    RecvRequest recv;
  };

  Message& Send(uint32_t number, size_t bytes) {
    Message& message = messages_[number];
    message.from = Pattern(number, bytes);
    message.to.resize(bytes);
    message.send.peer = 1;
    message.send.key.step = number;
    message.send.data = message.from.data();
    message.send.bytes = bytes;
    message.send.owner = sender_.get();
    message.send.token = number;
    sender_->transport->Send(message.send);
    for (int i = 0; i < 100 && receiver_->announced.count(number) == 0; ++i) {
      receiver_->transport->Progress(policy::kProgressBytes);
    }
    EXPECT_EQ(receiver_->announced.count(number), 1u);
    return message;
  }

  void Accept(uint32_t number) {
    RecvRequest& recv = messages_[number].recv;
    recv.peer = 0;
    recv.key.step = number;
    recv.bytes = messages_[number].to.size();
    recv.destination = messages_[number].to.data();
    recv.owner = receiver_.get();
    recv.token = number;
    receiver_->transport->Accept(recv, receiver_->announced[number]);
  }

  // Whether it came whole and both sides know.
  bool Comes(uint32_t number) {
    const absl::Time end = absl::Now() + absl::Seconds(20);
    while (sender_->done.count(number) + receiver_->done.count(number) < 2 && absl::Now() < end) {
      receiver_->transport->Progress(policy::kProgressBytes);
      sender_->transport->Progress(policy::kProgressBytes);
    }
    return sender_->done[number].ok() && receiver_->done[number].ok() &&
           messages_[number].to == Pattern(number, messages_[number].to.size());
  }

  uint64_t borrowed() const { return receiver_->transport->borrowed_bytes(); }

  std::unique_ptr<End> sender_, receiver_;
  std::map<uint32_t, Message> messages_;
};

TEST_F(ShmTransportTest, LargeMessagesAreLent) {
  Connect();
  for (uint32_t number = 1; number <= policy::kShmTrialMessages; ++number) {
    Send(number, kLarge);
    Accept(number);
    ASSERT_TRUE(Comes(number));
    EXPECT_EQ(borrowed(), number * kLarge);
  }
}

TEST_F(ShmTransportTest, MoreThanAPipeHoldsIsLentInPart) {
  Connect();
  Send(1, 3 * policy::kShmLentBytes);
  Accept(1);
  ASSERT_TRUE(Comes(1));
  EXPECT_GT(borrowed(), policy::kShmLentBytes - 4096);
  EXPECT_LE(borrowed(), policy::kShmLentBytes);
}

// The one that is taken out of turn comes from lent pages, those before it from the sender's memory.
TEST_F(ShmTransportTest, AnyOrderOfReceivesIsRight) {
  Connect();
  for (uint32_t number = 1; number <= 3; ++number) Send(number, kLarge);
  for (const uint32_t number : {2u, 1u, 3u}) {
    Accept(number);
    ASSERT_TRUE(Comes(number)) << number;
  }
  EXPECT_EQ(borrowed(), 2 * kLarge);
}

TEST_F(ShmTransportTest, OneUnderWayKeepsWhatWasLentOfIt) {
  Connect();
  Send(1, 3 * policy::kShmLentBytes);  // fills the pipe: nothing of the next is lent
  Send(2, kLarge);
  Accept(2);
  Accept(1);
  ASSERT_TRUE(Comes(1));
  ASSERT_TRUE(Comes(2));
  EXPECT_GT(borrowed(), policy::kShmLentBytes - 4096);
}

TEST_F(ShmTransportTest, ABufferThatIsUsedAgainAfterItsSendWasGivenUpHurtsNobody) {
  Connect();
  Message& first = Send(1, kLarge);
  sender_->transport->CancelSend(first.send);
  std::fill(first.from.begin(), first.from.end(), std::byte{0xee});
  Send(2, kLarge);
  Accept(1);
  Accept(2);
  ASSERT_TRUE(Comes(2));
  EXPECT_EQ(receiver_->done.count(1), 0u);  // an abort would say so
  EXPECT_EQ(borrowed(), kLarge);
}

TEST_F(ShmTransportTest, AReceiverThatMayNotReadIsLentNothing) {
  Connect(/*receivers_single_copy=*/"0");
  for (uint32_t number = 1; number <= 3; ++number) {
    Send(number, kLarge);
    EXPECT_EQ(receiver_->announced[number].lent, 0u);
    Accept(number);
    ASSERT_TRUE(Comes(number));
  }
  EXPECT_EQ(borrowed(), 0u);
}

// The slot in which a receiver refuses is seen at once, its ring a message at a time: what it says there counts more.
TEST_F(ShmTransportTest, WhyAMessageIsRefusedIsHeardFirst) {
  Connect();
  Message& message = Send(1, kLarge);
  std::vector<std::unique_ptr<SendRequest>> small;
  for (uint32_t number = 10; number < 13; ++number) {
    small.push_back(std::make_unique<SendRequest>());
    small.back()->peer = 0;
    small.back()->owner = receiver_.get();
    small.back()->token = number;
    receiver_->transport->Send(*small.back());
  }
  receiver_->transport->SendAbort(0, message.send.key, absl::UnavailableError("rank 7 was lost"));
  receiver_->transport->Reply(0, receiver_->announced[1], Answer::kRefused);
  sender_->cancels_on_abort = &message.send;
  sender_->transport->Progress(policy::kProgressBytes);
  EXPECT_EQ(sender_->messages, 3);
  EXPECT_EQ(sender_->aborts[1], absl::UnavailableError("rank 7 was lost"));
  EXPECT_EQ(sender_->done.count(1), 0u);  // given up with its operation
}

TEST_F(ShmTransportTest, ARefusalWithoutAReasonEndsTheSend) {
  Connect();
  Send(1, kLarge);
  receiver_->transport->Reply(0, receiver_->announced[1], Answer::kRefused);
  sender_->transport->Progress(policy::kProgressBytes);
  ASSERT_EQ(sender_->done.count(1), 1u);
  EXPECT_EQ(sender_->done[1].code(), absl::StatusCode::kInvalidArgument);
}

// Its last answer lies in a slot that nobody has looked at when it is found to have left.
TEST_F(ShmTransportTest, WhatALeaverHasTakenIsDoneBeforeItIsGone) {
  Connect();
  Send(1, kLarge);
  Accept(1);
  const absl::Time end = absl::Now() + absl::Seconds(20);
  while (receiver_->done.count(1) == 0 && absl::Now() < end) {
    receiver_->transport->Progress(policy::kProgressBytes);
  }
  ASSERT_TRUE(receiver_->done[1].ok());
  receiver_->transport->Close();
  ASSERT_EQ(sender_->done.count(1), 0);
  sender_->transport->CheckPeers();
  EXPECT_TRUE(sender_->has_left);
  ASSERT_EQ(sender_->done_before.count(1), 1);
  EXPECT_EQ(sender_->done_before[1], absl::OkStatus());
}

}  // namespace
}  // namespace cohort::comm::shm
