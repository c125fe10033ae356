// The transport of a rank to itself.
#pragma once

#include <vector>

#include "comm/transport/transport.h"

namespace cohort::comm {

// Every message waits at its sender until the receive is there, and is then copied once.
class SelfTransport : public Transport {
 public:
  SelfTransport(int rank, TransportEvents* events) : rank_(rank), events_(events) {}

  absl::string_view name() const override { return "self"; }
  void Send(SendRequest& send) override;
  void CancelSend(SendRequest& send) override { std::erase(waiting_, &send); }
  void Accept(RecvRequest& recv, const MessageHeader& header) override;
  void CancelRecv(RecvRequest& recv) override {}
  void Reply(int peer, const MessageHeader& header, Answer answer) override;
  void SendAbort(int peer, const MessageKey& key, const absl::Status& why) override {}
  bool Progress(size_t budget) override { return false; }
  void CheckPeers() override {}
  int64_t MaxSleepNanos() const override;
  void Close() override {}

 private:
  SendRequest* TakeWaiting(uint32_t slot);

  int rank_;
  TransportEvents* events_;
  std::vector<SendRequest*> waiting_;
  uint32_t next_slot_ = 1;
};

}  // namespace cohort::comm
