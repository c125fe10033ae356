// How every function that may be taken over is wrapped.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <exception>
#include <optional>

#include "absl/status/status.h"
#include "comm/interposer/session.h"

namespace cohort::comm::interposer {

// Calls `pass()`, the function of PMPI, unless this call is to be taken over: then `body(communicator, session)`.
// `bytes(size of the group, this rank)`: what all ranks decide by; nullopt where MPI is to do it, on all ranks
// or because an argument is wrong.
template <typename Pass, typename Bytes, typename Body>
int Intercept(Call call, MPI_Comm comm, Pass pass, Bytes bytes, Body body) {
  Session* session = Session::Get();
  if (session == nullptr) return pass();
  absl::Status status;
  try {
    Group* group = session->Find(comm);
    std::optional<uint64_t> size;
    if (group != nullptr && group->ours) size = bytes(*group);
    const bool taken = size.has_value() && session->Takes(call, *group, *size);
    session->Count(call, taken);
    if (!taken) return pass();
    const absl::StatusOr<Communicator*> communicator = session->Ready(comm, group);
    status = communicator.ok() ? body(**communicator, *session) : communicator.status();
  } catch (const std::exception& error) {  // no memory
    status = absl::ResourceExhaustedError(error.what());
  }
  return status.ok() ? MPI_SUCCESS : session->Raise(comm, status);
}

}  // namespace cohort::comm::interposer
