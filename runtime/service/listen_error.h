// Why a server could not listen: gRPC says only that it could not.
#pragma once

#include <string>

namespace cohort::runtime {

// What is wrong with the port of `address` (host:port, [v6]:port), of which gRPC takes the rest modulo 65536; empty where
// nothing is, or where it is none of these (unix:PATH).
std::string WhyNoPort(const std::string& address);
// Tries to bind `address` (host:port, [v6]:port) by itself and says what the system says; empty where that works.
std::string WhyNotListen(const std::string& address);

}  // namespace cohort::runtime
