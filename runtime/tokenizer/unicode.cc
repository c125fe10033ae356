#include "runtime/tokenizer/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::runtime {
namespace {

// The characters that bytes_to_unicode maps to themselves.
bool IsPrintableLatin1(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

constexpr int kByteLevelChars = 256 + 68;  // 68 bytes are not printable and move above U+00FF

struct ByteLevelTable {
  std::array<std::string, 256> char_of_byte;
  std::array<int16_t, kByteLevelChars> byte_of_char;

  ByteLevelTable() {
    byte_of_char.fill(-1);
    int moved = 0;
    for (int byte = 0; byte < 256; ++byte) {
      const int c = IsPrintableLatin1(byte) ? byte : 256 + moved++;
      AppendUtf8(static_cast<char32_t>(c), &char_of_byte[byte]);
      byte_of_char[c] = static_cast<int16_t>(byte);
    }
    COHORT_CHECK(256 + moved == kByteLevelChars, "%d bytes moved", moved);
  }
};

const ByteLevelTable& Table() {
  static const ByteLevelTable table;
  return table;
}

const icu::Normalizer2* Normalizer(NormalForm form, UErrorCode* error) {
  switch (form) {
    case NormalForm::kNfc:
      return icu::Normalizer2::getNFCInstance(*error);
    case NormalForm::kNfd:
      return icu::Normalizer2::getNFDInstance(*error);
    case NormalForm::kNfkc:
      return icu::Normalizer2::getNFKCInstance(*error);
    case NormalForm::kNfkd:
      return icu::Normalizer2::getNFKDInstance(*error);
  }
  return nullptr;
}

}  // namespace

DecodedChar DecodeUtf8(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true, false};
  // The range of the second byte rules out overlong forms, surrogates and values above U+10FFFF (table 3-7).
  uint8_t length, low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {kReplacementCharacter, 1, false, false};
  }
  char32_t c = lead & (0xFF >> (length + 1));
  for (uint8_t i = 1; i < length; ++i) {
    if (i >= text.size()) return {kReplacementCharacter, i, false, true};
    if (byte(i) < low || byte(i) > high) return {kReplacementCharacter, i, false, false};
    low = 0x80, high = 0xBF;
    c = c << 6 | (byte(i) & 0x3F);
  }
  return {c, length, true, false};
}

void AppendUtf8(char32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | c >> 12));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | c >> 18));
    out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

size_t FindInvalidUtf8(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    if (static_cast<uint8_t>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const DecodedChar decoded = DecodeUtf8(text.substr(i));
    if (!decoded.valid) return i;
    i += decoded.bytes;
  }
  return absl::string_view::npos;
}

std::string ReplaceInvalidUtf8(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const DecodedChar decoded = DecodeUtf8(text);
    AppendUtf8(decoded.code_point, &out);
    text.remove_prefix(decoded.bytes);
  }
  return out;
}

size_t CountChars(absl::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return count;
}

bool IsWhitespace(char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)); }

bool IsNumeric(char32_t c) { return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_N_MASK) != 0; }

bool IsPunctuation(char32_t c) {
  if (c < 0x80) return c > ' ' && c < 0x7F && !u_isalnum(static_cast<UChar32>(c));
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_P_MASK) != 0;
}

bool IsWordChar(char32_t c) {
  const auto u = static_cast<UChar32>(c);
  return u_isUAlphabetic(u) || (U_GET_GC_MASK(u) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
         u_hasBinaryProperty(u, UCHAR_JOIN_CONTROL);
}

absl::StatusOr<std::string> NormalizeUnicode(NormalForm form, absl::string_view text) {
  if (text.size() > INT32_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("a text of ", text.size(), " bytes is too long to normalize"));
  }
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = Normalizer(form, &error);
  std::string out;
  if (U_SUCCESS(error)) {
    out.reserve(text.size());
    icu::StringByteSink<std::string> sink(&out);
    normalizer->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink,
                              nullptr, error);
  }
  if (U_FAILURE(error)) {
    return absl::InternalError(absl::StrCat("Unicode normalization failed: ", u_errorName(error)));
  }
  return out;
}

std::string LowercaseUnicode(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const DecodedChar decoded = DecodeUtf8(text);
    if (decoded.code_point ==
        0x130) {  // the only character whose full lower case is longer than its simple one
      out += "i\u0307";
    } else {
      AppendUtf8(static_cast<char32_t>(u_tolower(static_cast<UChar32>(decoded.code_point))), &out);
    }
    text.remove_prefix(decoded.bytes);
  }
  return out;
}

const std::array<std::string, 256>& ByteLevelAlphabet() { return Table().char_of_byte; }

int ByteOfByteLevelChar(char32_t c) { return c < kByteLevelChars ? Table().byte_of_char[c] : -1; }

}  // namespace cohort::runtime
