// UTF-8 and the few Unicode functions that tokenizers need. All functions are pure and thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cohort::runtime {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// One decoded character. `bytes` is its length. Where the text is not valid UTF-8, `valid` is false and
// `bytes` is the length of the maximal ill-formed subpart (Unicode 15, section 3.9), which becomes one
// U+FFFD. `incomplete` says that the text ends inside a sequence that more bytes could complete.
struct DecodedChar {
  char32_t code_point = kReplacementCharacter;
  uint8_t bytes = 0;
  bool valid = false;
  bool incomplete = false;
};

// Decodes the character at the start of `text`, which must not be empty.
DecodedChar DecodeUtf8(absl::string_view text);

void AppendUtf8(char32_t code_point, std::string* out);

// The offset of the first byte that is not part of valid UTF-8, or npos.
size_t FindInvalidUtf8(absl::string_view text);

// The text with each maximal ill-formed subpart replaced by U+FFFD.
std::string ReplaceInvalidUtf8(absl::string_view text);

// Number of characters in valid UTF-8.
size_t CountChars(absl::string_view text);

bool IsWhitespace(char32_t c);   // property White_Space
bool IsNumeric(char32_t c);      // categories Nd, Nl, No
bool IsPunctuation(char32_t c);  // ASCII punctuation and the categories P*
bool IsWordChar(char32_t c);     // \w of Unicode TR18: Alphabetic, marks, Nd, Pc, Join_Control

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` must be valid UTF-8. InvalidArgument where it is longer than 2 GiB.
absl::StatusOr<std::string> NormalizeUnicode(NormalForm form, absl::string_view text);

// Lower case of every character alone, without context.
std::string LowercaseUnicode(absl::string_view text);

// GPT-2's bijection between bytes and printable characters (bytes_to_unicode in its encoder.py).
// Each byte's character, as UTF-8 of one or two bytes.
const std::array<std::string, 256>& ByteLevelAlphabet();

// The byte behind a character of that alphabet, or -1.
int ByteOfByteLevelChar(char32_t c);

}  // namespace cohort::runtime
