#include "comm/transport/peer_silence.h"

#include <cstdlib>

#include "absl/strings/numbers.h"
#include "comm/policy.h"

namespace cohort::comm {

int64_t PeerSilenceNanos() {
  const char* wish = std::getenv("COHORT_PEER_SILENCE_MS");
  int64_t millis = 0;
  if (wish == nullptr || !absl::SimpleAtoi(wish, &millis) || millis <= 0) return policy::kPeerSilenceNanos;
  return millis * 1'000'000;
}

}  // namespace cohort::comm
