// As much of etcd as a journal needs: its key-value calls of version 3 over HTTP and JSON.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace cohort::cluster {

// Not thread-safe. UNAVAILABLE: no endpoint answers in time; whether a write was done is not known then.
// RESOURCE_EXHAUSTED: etcd has no room.
class Etcd {
 public:
  // HOST:PORT each; the first that answers is used.
  explicit Etcd(std::vector<std::string> endpoints) : endpoints_(std::move(endpoints)) {}

  absl::StatusOr<std::optional<std::string>> Get(const std::string& key);
  // All pairs whose keys begin with `prefix`, from `first` on, by key; so many in one answer.
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> List(const std::string& prefix,
                                                                        const std::string& first, int page);
  absl::Status Put(const std::string& key, const std::string& value);
  // Writes all pairs if `key` has this value (nullopt: is not there); false where it has another one.
  absl::StatusOr<bool> PutIf(const std::string& key, const std::optional<std::string>& value,
                             const std::vector<std::pair<std::string, std::string>>& pairs);
  // Keys from `first` up to, not with, `end`.
  absl::Status Delete(const std::string& first, const std::string& end);

 private:
  // The JSON of the answer.
  absl::StatusOr<std::string> Call(const std::string& path, const std::string& body);

  std::vector<std::string> endpoints_;
};

// The end of the range of keys that begin with `prefix`.
std::string PrefixEnd(std::string prefix);

}  // namespace cohort::cluster
