// The BPE model: merges the characters of a word into tokens (Sennrich, Haddow and Birch, "Neural machine
// translation of rare words with subword units", ACL 2016).
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

// Thread-safe: Encode is const, its cache of words is locked inside.
class BpeModel {
 public:
  // `value` is the "model" of a tokenizer.json. InvalidArgument for other models, merges of unknown tokens,
  // ids used twice or out of range, and options that no supported family uses.
  static absl::StatusOr<std::unique_ptr<BpeModel>> FromJson(const nlohmann::json* value,
                                                            const std::string& where);
  ~BpeModel();

  // Appends the ids of one word, which is valid UTF-8. Characters outside of the vocabulary become their
  // bytes (byte_fallback), the unknown token, or nothing, as the file says.
  void Encode(absl::string_view word, std::vector<int32_t>* ids) const;

  // The id of a token, or -1.
  int32_t IdOf(absl::string_view token) const;

  // One more than the largest id; the token of an id, empty where no token has it.
  int32_t size() const;
  const std::string& TokenOf(int32_t id) const;

 private:
  struct State;
  BpeModel();
  std::unique_ptr<State> state_;
};

}  // namespace cohort::runtime
