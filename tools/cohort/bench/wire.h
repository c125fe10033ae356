// The bytes that leave this host.
#pragma once

#include <cstdint>

namespace cohort::tools {

// What this host's interfaces, the loopback aside, have sent since they exist, as the kernel counts it: with
// headers and acknowledgements. 0 where the kernel does not say.
int64_t BytesSentByHost();

}  // namespace cohort::tools
