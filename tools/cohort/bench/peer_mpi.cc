// The MPI that started this job as a peer.
#include "tools/cohort/bench/peers.h"

#ifdef COHORT_HAVE_MPI

#include <mpi.h>

#include <climits>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/transport/mpi/mpi_runtime.h"

namespace cohort::tools {
namespace {

using comm::Operation;

constexpr int kTag = 0;

absl::Status Checked(int code) {
  if (code == MPI_SUCCESS) return absl::OkStatus();
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  return absl::UnavailableError(absl::StrCat("MPI: ", text));
}

std::string LibraryName() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(text, &length);
  if (absl::StrContains(text, "Open MPI")) return "openmpi";
  if (absl::StrContains(text, "Intel")) return "intelmpi";
  return absl::StrContains(text, "MPICH") ? "mpich" : "mpi";
}

void FinalizeAtExit() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized) MPI_Finalize();
}

class MpiPeer : public Peer {
 public:
  MpiPeer(comm::mpi::Runtime& runtime, std::string name) : runtime_(runtime), name_(std::move(name)) {
    const std::lock_guard lock(runtime_.mutex);
    MPI_Comm_dup(MPI_COMM_WORLD, &group_);
  }
  ~MpiPeer() override {
    const std::lock_guard lock(runtime_.mutex);
    MPI_Comm_free(&group_);
  }

  std::string name() const override { return name_; }
  std::vector<std::string> Algorithms(const CollectiveCall&) const override { return {"default"}; }
  std::unique_lock<std::mutex> Exclusive() override { return std::unique_lock(runtime_.mutex); }

  absl::StatusOr<RunOnce> Prepare(const CollectiveCall& call, const std::string&) override {
    if (call.block > INT_MAX) return absl::InvalidArgumentError("MPI counts are ints");
    const int count = static_cast<int>(call.block);
    const MPI_Comm group = group_;
    switch (call.operation) {
      case Operation::kAllReduce:
        return [=] { return Checked(MPI_Allreduce(call.send, call.recv, count, MPI_FLOAT, MPI_SUM, group)); };
      case Operation::kReduceScatter:
        return [=] {
          return Checked(MPI_Reduce_scatter_block(call.send, call.recv, count, MPI_FLOAT, MPI_SUM, group));
        };
      case Operation::kAllGather:
        return [=] {
          return Checked(MPI_Allgather(call.send, count, MPI_FLOAT, call.recv, count, MPI_FLOAT, group));
        };
      case Operation::kBroadcast:
        return [=] { return Checked(MPI_Bcast(call.recv, count, MPI_FLOAT, 0, group)); };
      case Operation::kAllToAll:
        return [=] {
          return Checked(MPI_Alltoall(call.send, count, MPI_FLOAT, call.recv, count, MPI_FLOAT, group));
        };
      case Operation::kAllToAllV: {
        const std::vector<int> counts(call.size, count);
        std::vector<int> offsets(call.size);
        for (int rank = 0; rank < call.size; ++rank) offsets[rank] = rank * count;
        return [=] {
          return Checked(MPI_Alltoallv(call.send, counts.data(), offsets.data(), MPI_FLOAT, call.recv,
                                       counts.data(), offsets.data(), MPI_FLOAT, group));
        };
      }
      case Operation::kPointToPoint:
        return [=] { return RoundTrip(call, count, group); };
      default:
        return absl::UnimplementedError("cohort bench collectives does not measure this operation");
    }
  }

 private:
  static absl::Status RoundTrip(const CollectiveCall& call, int count, MPI_Comm group) {
    if (call.rank == 0) {
      COHORT_RETURN_IF_ERROR(Checked(MPI_Send(call.send, count, MPI_FLOAT, call.peer, kTag, group)));
      return Checked(MPI_Recv(call.recv, count, MPI_FLOAT, call.peer, kTag, group, MPI_STATUS_IGNORE));
    }
    if (call.rank != call.peer) return absl::OkStatus();
    COHORT_RETURN_IF_ERROR(Checked(MPI_Recv(call.recv, count, MPI_FLOAT, 0, kTag, group, MPI_STATUS_IGNORE)));
    return Checked(MPI_Send(call.send, count, MPI_FLOAT, 0, kTag, group));
  }

  comm::mpi::Runtime& runtime_;
  std::string name_;
  MPI_Comm group_ = MPI_COMM_NULL;
};

}  // namespace

absl::Status StartMpiForBench() {
  int initialized = 0, level = MPI_THREAD_SINGLE;
  MPI_Initialized(&initialized);
  if (initialized) return absl::OkStatus();
  COHORT_RETURN_IF_ERROR(Checked(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level)));
  std::atexit(FinalizeAtExit);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Peer>> MakeMpiPeer(comm::Communicator&, const std::string& name) {
  COHORT_ASSIGN_OR_RETURN(comm::mpi::Runtime * runtime, comm::mpi::Start());
  return std::make_unique<MpiPeer>(*runtime, name.empty() ? LibraryName() : name);
}

}  // namespace cohort::tools

#else

namespace cohort::tools {

absl::Status StartMpiForBench() { return absl::OkStatus(); }

absl::StatusOr<std::unique_ptr<Peer>> MakeMpiPeer(comm::Communicator&, const std::string&) { return nullptr; }

}  // namespace cohort::tools

#endif  // COHORT_HAVE_MPI
