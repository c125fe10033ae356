// Why a server could not listen: gRPC says only that it could not.
#pragma once

#include <string>

namespace cohort::runtime {

// Tries to bind `address` (host:port, [v6]:port) by itself and says what the system says; empty where that works.
std::string WhyNotListen(const std::string& address);

}  // namespace cohort::runtime
