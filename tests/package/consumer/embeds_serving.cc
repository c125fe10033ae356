// A program outside the tree that links everything: a client of a service that is not there is told so.
#include <cohort/serving/client.h>

#include <iostream>

#include "absl/time/clock.h"

int main() {
  const auto client = cohort::serving::Client::Create("127.0.0.1:1");
  if (!client.ok()) {
    std::cerr << client.status() << "\n";
    return 1;
  }
  const absl::Status status = (*client)->WaitUntilConnected(absl::Now() + absl::Milliseconds(200));
  std::cout << status << "\n";
  return absl::IsUnavailable(status) ? 0 : 1;
}
