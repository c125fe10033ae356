#include "runtime/tokenizer/added_tokens.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/policy.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {
namespace {

// The start of the last character of a text that is not empty.
size_t LastCharBegin(absl::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool EndsWithWordChar(absl::string_view text) {
  return !text.empty() && IsWordChar(DecodeUtf8(text.substr(LastCharBegin(text))).code_point);
}

bool StartsWithWordChar(absl::string_view text) {
  return !text.empty() && IsWordChar(DecodeUtf8(text).code_point);
}

absl::StatusOr<AddedToken> ReadToken(const nlohmann::json& value, const std::string& where) {
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, where));
  AddedToken token;
  COHORT_ASSIGN_OR_RETURN(const int64_t id, fields.Int("id", 0, tokenizer_policy::kMaxVocabularySize - 1));
  token.id = static_cast<int32_t>(id);
  COHORT_ASSIGN_OR_RETURN(token.content, fields.String("content"));
  if (token.content.empty()) return fields.Error("\"content\" is empty");
  COHORT_ASSIGN_OR_RETURN(token.special, fields.BoolOr("special", false));
  COHORT_ASSIGN_OR_RETURN(token.single_word, fields.BoolOr("single_word", false));
  COHORT_ASSIGN_OR_RETURN(token.lstrip, fields.BoolOr("lstrip", false));
  COHORT_ASSIGN_OR_RETURN(token.rstrip, fields.BoolOr("rstrip", false));
  COHORT_ASSIGN_OR_RETURN(token.normalized, fields.BoolOr("normalized", !token.special));
  return token;
}

}  // namespace

void AddedTokens::Trie::Add(absl::string_view content, int32_t token) {
  if (content.empty()) return;
  first_byte_[static_cast<uint8_t>(content[0])] = true;
  uint32_t node = 0;
  for (const char c : content) {
    const auto next = static_cast<uint32_t>(token_of_node_.size());
    const auto [child, inserted] =
        children_.try_emplace(static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(c), next);
    if (inserted) token_of_node_.push_back(-1);
    node = child->second;
  }
  token_of_node_[node] = token;
}

std::pair<size_t, int32_t> AddedTokens::Trie::Longest(absl::string_view text) const {
  std::pair<size_t, int32_t> longest = {0, -1};
  if (!first_byte_[static_cast<uint8_t>(text[0])]) return longest;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto child = children_.find(static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (token_of_node_[node] >= 0) longest = {i + 1, token_of_node_[node]};
  }
  return longest;
}

absl::StatusOr<AddedTokens> AddedTokens::FromJson(const nlohmann::json* value, const std::string& where,
                                                  const BpeModel& model, const Normalizer& normalizer) {
  AddedTokens added;
  if (value == nullptr) return added;
  if (!value->is_array()) return absl::InvalidArgumentError(absl::StrCat(where, " must be a list"));
  for (size_t i = 0; i < value->size(); ++i) {
    const std::string place = absl::StrCat(where, "[", i, "]");
    COHORT_ASSIGN_OR_RETURN(AddedToken token, ReadToken((*value)[i], place));
    const auto error = [&](absl::string_view message) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": the token \"", token.content, "\" with id ", token.id, " ", message));
    };
    const int32_t known_id = model.IdOf(token.content);
    const std::string& known_token = model.TokenOf(token.id);
    if (known_id >= 0 && known_id != token.id)
      return error(absl::StrCat("has the id ", known_id, " in the vocabulary"));
    if (known_id < 0 && !known_token.empty()) {
      return error(absl::StrCat("has the id of \"", known_token, "\" in the vocabulary"));
    }
    const auto index = static_cast<int32_t>(added.tokens_.size());
    if (!added.index_of_id_.emplace(token.id, index).second)
      return error("repeats the id of another added token");
    if (!added.index_of_content_.emplace(token.content, index).second) return error("is there twice");
    if (token.normalized) {
      std::string content;
      COHORT_ASSIGN_OR_RETURN(content, normalizer.Normalize(token.content));
      added.normalized_.Add(content, index);
    } else {
      added.raw_.Add(token.content, index);
    }
    added.size_ = std::max(added.size_, token.id + 1);
    added.tokens_.push_back(std::move(token));
  }
  return added;
}

std::vector<AddedTokens::Match> AddedTokens::FindMatches(const Trie& trie, absl::string_view text) const {
  std::vector<Match> matches;
  size_t covered = 0;
  for (size_t at = 0; at < text.size();) {
    const auto [length, index] = trie.Longest(text.substr(at));
    if (length == 0) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + length;
    at = end;
    if (begin < covered) continue;  // begins in the white space that the last match took
    const AddedToken& token = tokens_[index];
    if (token.single_word &&
        (EndsWithWordChar(text.substr(0, begin)) || StartsWithWordChar(text.substr(end))))
      continue;
    if (token.lstrip) {
      while (begin > covered) {
        const size_t last = LastCharBegin(text.substr(0, begin));
        if (!IsWhitespace(DecodeUtf8(text.substr(last)).code_point)) break;
        begin = last;
      }
    }
    if (token.rstrip) {
      while (end < text.size()) {
        const DecodedChar next = DecodeUtf8(text.substr(end));
        if (!IsWhitespace(next.code_point)) break;
        end += next.bytes;
      }
    }
    if (begin > covered) matches.push_back({covered, begin, -1});
    // A match that begins in the white space which the last one took counts all the
    // same, as in Hugging Face's.
    matches.push_back({std::max(begin, covered), std::max(end, covered), index});
    covered = std::max(end, covered);
  }
  if (covered < text.size()) matches.push_back({covered, text.size(), -1});
  return matches;
}

absl::StatusOr<std::vector<TextOrToken>> AddedTokens::Split(absl::string_view text,
                                                            const Normalizer& normalizer) const {
  std::vector<TextOrToken> pieces;
  for (const Match& raw : FindMatches(raw_, text)) {
    if (raw.token >= 0) {
      pieces.push_back({"", tokens_[raw.token].id, raw.begin == 0});
      continue;
    }
    COHORT_ASSIGN_OR_RETURN(std::string normalized,
                            normalizer.Normalize(std::string(text.substr(raw.begin, raw.end - raw.begin))));
    for (const Match& match : FindMatches(normalized_, normalized)) {
      const bool at_start = raw.begin == 0 && match.begin == 0;
      if (match.token >= 0) {
        pieces.push_back({"", tokens_[match.token].id, at_start});
      } else {
        pieces.push_back({normalized.substr(match.begin, match.end - match.begin), -1, at_start});
      }
    }
  }
  return pieces;
}

const AddedToken* AddedTokens::Find(int32_t id) const {
  const auto found = index_of_id_.find(id);
  return found == index_of_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::Find(absl::string_view content) const {
  const auto found = index_of_content_.find(content);
  return found == index_of_content_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace cohort::runtime
