// Operations and their handles, from C.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/c/handles.h"
#include "comm/c/operate.h"

namespace cohort::comm::c {
namespace {

// Operate for reductions.
template <typename Start>
cohort_status OperateReducing(cohort_comm* comm, cohort_dtype dtype, cohort_reduce_op op, cohort_work** work,
                              Start start) {
  return Operate(comm, dtype, work, [&](Communicator& communicator) {
    if (op < 0 || op >= COHORT_NUM_REDUCE_OPS) {
      return Work(
          absl::InvalidArgumentError(absl::StrCat(static_cast<int>(op), " is not a cohort_reduce_op")));
    }
    return start(communicator, static_cast<ReduceOp>(op));
  });
}

// One count a rank (or `size` squared); none where the array is NULL, which the communicator calls an error.
absl::Span<const size_t> Counts(const Communicator& communicator, const size_t* counts, bool matrix = false) {
  const auto size = static_cast<size_t>(communicator.size());
  return counts == nullptr ? absl::Span<const size_t>()
                           : absl::MakeConstSpan(counts, matrix ? size * size : size);
}

cohort_status Wait(cohort_work* work, absl::Duration limit) {
  return Guard([&]() -> absl::Status {
    if (work == nullptr) return NullArgument("the work");
    return work->work.Wait(limit == absl::InfiniteDuration() ? absl::InfiniteFuture() : absl::Now() + limit);
  });
}

}  // namespace
}  // namespace cohort::comm::c

using namespace cohort::comm;     // NOLINT: below are functions of C
using namespace cohort::comm::c;  // NOLINT

cohort_status cohort_work_test(cohort_work* work, int* done) {
  return Guard([&]() -> absl::Status {
    if (work == nullptr) return NullArgument("the work");
    if (done == nullptr) return NullArgument("where the answer goes");
    *done = work->work.Done() ? 1 : 0;
    return absl::OkStatus();
  });
}

cohort_status cohort_work_wait(cohort_work* work, int64_t timeout_nanos) {
  return Wait(work,
              timeout_nanos == COHORT_FOREVER ? absl::InfiniteDuration() : absl::Nanoseconds(timeout_nanos));
}

cohort_status cohort_work_wait_seconds(cohort_work* work, double timeout_seconds) {
  return Wait(work, absl::Seconds(timeout_seconds));
}

void cohort_work_free(cohort_work* work) {
  (void)Guard([&] {
    delete work;
    return absl::OkStatus();
  });
}

cohort_status cohort_all_reduce(cohort_comm* comm, const void* send, void* recv, size_t count,
                                cohort_dtype dtype, cohort_reduce_op op, cohort_work** work) {
  return OperateReducing(comm, dtype, op, work, [&](Communicator& communicator, ReduceOp reduce) {
    return communicator.AllReduce(send, recv, count, TypeOf(dtype), reduce);
  });
}

cohort_status cohort_reduce(cohort_comm* comm, const void* send, void* recv, size_t count, cohort_dtype dtype,
                            cohort_reduce_op op, int root, cohort_work** work) {
  return OperateReducing(comm, dtype, op, work, [&](Communicator& communicator, ReduceOp reduce) {
    return communicator.Reduce(send, recv, count, TypeOf(dtype), root, reduce);
  });
}

cohort_status cohort_reduce_scatter(cohort_comm* comm, const void* send, void* recv, const size_t* counts,
                                    cohort_dtype dtype, cohort_reduce_op op, cohort_work** work) {
  return OperateReducing(comm, dtype, op, work, [&](Communicator& communicator, ReduceOp reduce) {
    return communicator.ReduceScatter(send, recv, Counts(communicator, counts), TypeOf(dtype), reduce);
  });
}

cohort_status cohort_all_gather(cohort_comm* comm, const void* send, void* recv, const size_t* counts,
                                cohort_dtype dtype, cohort_work** work) {
  return Operate(comm, dtype, work, [&](Communicator& communicator) {
    return communicator.AllGather(send, recv, Counts(communicator, counts), TypeOf(dtype));
  });
}

cohort_status cohort_gather(cohort_comm* comm, const void* send, void* recv, const size_t* counts,
                            cohort_dtype dtype, int root, cohort_work** work) {
  return Operate(comm, dtype, work, [&](Communicator& communicator) {
    return communicator.Gather(send, recv, Counts(communicator, counts), TypeOf(dtype), root);
  });
}

cohort_status cohort_scatter(cohort_comm* comm, const void* send, void* recv, const size_t* counts,
                             cohort_dtype dtype, int root, cohort_work** work) {
  return Operate(comm, dtype, work, [&](Communicator& communicator) {
    return communicator.Scatter(send, recv, Counts(communicator, counts), TypeOf(dtype), root);
  });
}

cohort_status cohort_broadcast(cohort_comm* comm, void* buffer, size_t count, cohort_dtype dtype, int root,
                               cohort_work** work) {
  return Operate(comm, dtype, work, [&](Communicator& communicator) {
    return communicator.Broadcast(buffer, count, TypeOf(dtype), root);
  });
}

cohort_status cohort_all_to_all(cohort_comm* comm, const void* send, void* recv, size_t count,
                                cohort_dtype dtype, cohort_work** work) {
  return Operate(comm, dtype, work, [&](Communicator& communicator) {
    return communicator.AllToAll(send, recv, count, TypeOf(dtype));
  });
}

cohort_status cohort_all_to_all_v(cohort_comm* comm, const void* send, const size_t* send_counts, void* recv,
                                  const size_t* recv_counts, cohort_dtype dtype, cohort_work** work) {
  return Operate(comm, dtype, work, [&](Communicator& communicator) {
    return communicator.AllToAllV(send, Counts(communicator, send_counts), recv,
                                  Counts(communicator, recv_counts), TypeOf(dtype));
  });
}

cohort_status cohort_all_to_all_matrix(cohort_comm* comm, const void* send, void* recv, const size_t* counts,
                                       cohort_dtype dtype, cohort_work** work) {
  return Operate(comm, dtype, work, [&](Communicator& communicator) {
    return communicator.AllToAllMatrix(send, recv, Counts(communicator, counts, /*matrix=*/true),
                                       TypeOf(dtype));
  });
}

cohort_status cohort_barrier(cohort_comm* comm, cohort_work** work) {
  return Operate(comm, COHORT_U8, work, [](Communicator& communicator) { return communicator.Barrier(); });
}

cohort_status cohort_send(cohort_comm* comm, const void* buffer, size_t count, cohort_dtype dtype, int peer,
                          int tag, cohort_work** work) {
  return Operate(comm, dtype, work, [&](Communicator& communicator) {
    return communicator.Send(buffer, count, TypeOf(dtype), peer, tag);
  });
}

cohort_status cohort_recv(cohort_comm* comm, void* buffer, size_t count, cohort_dtype dtype, int peer,
                          int tag, cohort_work** work) {
  return Operate(comm, dtype, work, [&](Communicator& communicator) {
    return communicator.Recv(buffer, count, TypeOf(dtype), peer, tag);
  });
}
