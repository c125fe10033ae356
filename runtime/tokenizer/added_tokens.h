// Added tokens: pieces of text such as <|endoftext|> that are cut out before anything else is done to a text.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer/bpe_model.h"
#include "runtime/tokenizer/normalizer.h"

namespace cohort::runtime {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;      // left out where decoding skips special tokens
  bool single_word = false;  // matches only between characters that are not part of words
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // is looked for in normalized text rather than in the text as given
};

// A piece of a text: a token, or text between tokens.
struct TextOrToken {
  std::string text;  // where id < 0
  int32_t id = -1;
  bool at_start = false;  // begins where the whole text begins
};

// Immutable and thread-safe.
class AddedTokens {
 public:
  // `value` is the "added_tokens" of a tokenizer.json (may be null). InvalidArgument where an id or a content
  // is used twice or contradicts the model's vocabulary.
  static absl::StatusOr<AddedTokens> FromJson(const nlohmann::json* value, const std::string& where,
                                              const BpeModel& model, const Normalizer& normalizer);

  // Cuts the tokens out; the text between them is normalized.
  absl::StatusOr<std::vector<TextOrToken>> Split(absl::string_view text, const Normalizer& normalizer) const;

  const AddedToken* Find(int32_t id) const;                 // nullptr where absent
  const AddedToken* Find(absl::string_view content) const;  // nullptr where absent
  int32_t size() const { return size_; }                    // one more than the largest id

 private:
  // A trie over the bytes of the contents; node 0 is the root.
  class Trie {
   public:
    void Add(absl::string_view content, int32_t token);
    // The longest content at the start of `text`: its length and token, or length 0.
    std::pair<size_t, int32_t> Longest(absl::string_view text) const;

   private:
    absl::flat_hash_map<uint64_t, uint32_t> children_;  // (node << 8 | byte) -> node
    std::vector<int32_t> token_of_node_ = {-1};
    std::vector<bool> first_byte_ = std::vector<bool>(256);
  };

  // One stretch of a match in a text: token < 0 means text between matches.
  struct Match {
    size_t begin, end;
    int32_t token;  // index into tokens_
  };
  std::vector<Match> FindMatches(const Trie& trie, absl::string_view text) const;

  std::vector<AddedToken> tokens_;
  absl::flat_hash_map<int32_t, int32_t> index_of_id_;
  absl::flat_hash_map<std::string, int32_t> index_of_content_;
  Trie raw_, normalized_;
  int32_t size_ = 0;
};

}  // namespace cohort::runtime
