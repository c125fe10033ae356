// cohort.v1.Cluster over a ledger.
#pragma once

#include "cohort/v1/cluster.grpc.pb.h"
#include "runtime/elastic/coordinator/ledger.h"

namespace cohort::cluster {

// Answers through gRPC's callbacks: no thread waits for a client or for the disk. The ledger must outlive it.
// Thread-safe.
class ClusterService final : public v1::Cluster::CallbackService {
 public:
  explicit ClusterService(Ledger& ledger) : ledger_(ledger) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  Unary* Join(Context* context, const v1::JoinRequest* request, v1::JoinResponse* response) override;
  Unary* Leave(Context* context, const v1::LeaveRequest* request, v1::LeaveResponse* response) override;
  Unary* Renew(Context* context, const v1::RenewRequest* request, v1::RenewResponse* response) override;
  Unary* RequestLeave(Context* context, const v1::RequestLeaveRequest* request,
                      v1::RequestLeaveResponse* response) override;
  Unary* AdvanceEpoch(Context* context, const v1::AdvanceEpochRequest* request,
                      v1::AdvanceEpochResponse* response) override;
  Unary* GetEpoch(Context* context, const v1::GetEpochRequest* request, v1::Epoch* response) override;
  Unary* Tie(Context* context, const v1::TieRequest* request, v1::TieResponse* response) override;
  Unary* BoardPost(Context* context, const v1::BoardPostRequest* request,
                   v1::BoardPostResponse* response) override;
  Unary* BoardWithdraw(Context* context, const v1::BoardWithdrawRequest* request,
                       v1::BoardWithdrawResponse* response) override;
  Unary* BoardAnswered(Context* context, const v1::BoardAnsweredRequest* request,
                       v1::BoardAnsweredResponse* response) override;
  Unary* BoardWaiting(Context* context, const v1::BoardWaitingRequest* request,
                      v1::BoardWaitingResponse* response) override;
  Unary* BoardAnswer(Context* context, const v1::BoardAnswerRequest* request,
                     v1::BoardAnswerResponse* response) override;
  Unary* RendezvousPut(Context* context, const v1::RendezvousPutRequest* request,
                       v1::RendezvousPutResponse* response) override;
  Unary* RendezvousGet(Context* context, const v1::RendezvousGetRequest* request,
                       v1::RendezvousGetResponse* response) override;
  Unary* Report(Context* context, const v1::ReportRequest* request, v1::ReportResponse* response) override;
  grpc::ServerWriteReactor<v1::Event>* WatchEvents(Context* context,
                                                   const v1::WatchEventsRequest* request) override;
  Unary* Describe(Context* context, const v1::DescribeRequest* request,
                  v1::DescribeResponse* response) override;

 private:
  Ledger& ledger_;
};

// A status with its payloads as gRPC carries it, and back.
grpc::Status ToWire(const absl::Status& status);
absl::Status FromWire(const grpc::Status& status);

}  // namespace cohort::cluster
