// How long a peer may be silent.
#pragma once

#include <cstdint>

namespace cohort::comm {

// Silence that counts as loss, in nanoseconds: policy::kPeerSilenceNanos, or COHORT_PEER_SILENCE_MS.
int64_t PeerSilenceNanos();

}  // namespace cohort::comm
