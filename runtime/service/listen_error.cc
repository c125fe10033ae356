#include "runtime/service/listen_error.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace cohort::runtime {

std::string WhyNoPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return "it has no port; write host:port";
  int64_t port = 0;
  const bool number = absl::SimpleAtoi(absl::string_view(address).substr(colon + 1), &port);
  return number && (port < 0 || port > 65535) ? "a port is 0 (any free one) to 65535" : "";
}

std::string WhyNotListen(const std::string& address) {
  if (std::string reason = WhyNoPort(address); !reason.empty()) return reason;
  const size_t colon = address.rfind(':');
  absl::string_view host = absl::string_view(address).substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(std::string(host).c_str(), address.c_str() + colon + 1, &hints, &found);
  if (code != 0) return gai_strerror(code);
  std::string reason;
  const int fd = socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, found->ai_protocol);
  if (fd < 0) {
    reason = std::strerror(errno);
  } else {
    const int on = 1;  // as gRPC does: a port in TIME_WAIT is free
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, found->ai_addr, found->ai_addrlen) != 0) {
      reason = std::strerror(errno);
      if (errno == EADDRINUSE) reason += "; choose another port, or 0 for any free one";
    }
    close(fd);
  }
  freeaddrinfo(found);
  return reason;
}

}  // namespace cohort::runtime
