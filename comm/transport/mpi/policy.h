// Sizes of pieces, and waits, of the MPI transport.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::comm::policy {

// The longest sleep while a transport that cannot ring the bell (MPI) has peers.
inline constexpr int64_t kPollingSleepNanos = 100'000;
inline constexpr size_t kMpiEagerBytes = 16 << 10;
// Control messages that can arrive between two looks without waiting inside MPI.
inline constexpr int kMpiPostedReceives = 16;
// A body travels in pieces of this size, so that reductions overlap with the transfer.
inline constexpr size_t kMpiPieceBytes = 1 << 20;
// How long a closing communicator lets MPI flush what it has accepted.
inline constexpr int64_t kMpiFlushNanos = 5'000'000'000;

}  // namespace cohort::comm::policy
