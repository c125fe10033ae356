#include "runtime/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/tokenizer/policy.h"

namespace cohort::runtime {
namespace {

// What a match needs besides the program; one a thread, because PCRE2 writes to it.
struct Scratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(tokenizer_policy::kRegexStackStartBytes,
                                                  tokenizer_policy::kRegexStackMaxBytes, nullptr);
  Scratch() {
    COHORT_CHECK(data != nullptr && context != nullptr, "out of memory");
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

std::string ErrorText(int code) {
  char buffer[256];
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(buffer), sizeof(buffer));
  return buffer;
}

// Oniguruma's \w inside a character class: Unicode's, and in Latin-1 also the superscripts and fractions.
constexpr char kWord[] = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

// Rewrites what the two dialects read differently: \s is the property White_Space, \w has marks and all
// connector punctuation, \h is a hexadecimal digit.
absl::StatusOr<std::string> Translate(absl::string_view pattern, absl::string_view where) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      switch (escaped) {
        case 's':
          out += "\\p{White_Space}";
          break;
        case 'S':
          out += "\\P{White_Space}";
          break;
        case 'w':
          out += in_class ? kWord : absl::StrCat("[", kWord, "]");
          break;
        case 'W':
          if (in_class) {
            return absl::InvalidArgumentError(
                absl::StrCat(where,
                             ": \\W inside a character class is not supported in "
                             "the regular expression ",
                             pattern));
          }
          absl::StrAppend(&out, "[^", kWord, "]");
          break;
        case 'h':
          out += in_class ? "0-9a-fA-F" : "[0-9a-fA-F]";
          break;
        default:
          absl::StrAppend(&out, "\\", absl::string_view(&escaped, 1));
      }
      continue;
    }
    if (!in_class && c == '[') {
      in_class = true;
      out += c;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']')
        out += pattern[++i];  // a literal ] in both dialects
      continue;
    }
    if (in_class && c == '[') {
      if (absl::StartsWith(pattern.substr(i), "[:")) {
        const size_t end = pattern.find(":]", i);
        if (end != absl::string_view::npos) {
          absl::StrAppend(&out, pattern.substr(i, end + 2 - i));
          i = end + 1;
          continue;
        }
      }
      return absl::InvalidArgumentError(absl::StrCat(
          where, ": nested character classes are not supported in the regular expression ", pattern));
    }
    if (in_class && absl::StartsWith(pattern.substr(i), "&&")) {
      return absl::InvalidArgumentError(absl::StrCat(
          where, ": intersections of character classes (&&) are not supported in the regular expression ",
          pattern));
    }
    if (in_class && c == ']') in_class = false;
    out += c;
  }
  return out;
}

}  // namespace

struct Regex::Program {
  std::string pattern;  // as written in the file
  pcre2_code* code = nullptr;
  ~Program() { pcre2_code_free(code); }
};

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern, absl::string_view where) {
  COHORT_ASSIGN_OR_RETURN(const std::string translated, Translate(pattern, where));
  auto program = std::make_shared<Program>();
  program->pattern = std::string(pattern);
  int error = 0;
  PCRE2_SIZE error_offset = 0;
  // In Ruby's syntax ^ and $ match at every line.
  program->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &error_offset, nullptr);
  if (program->code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": the regular expression ", pattern, " does not compile: ", ErrorText(error)));
  }
  pcre2_jit_compile(program->code, PCRE2_JIT_COMPLETE);  // where it cannot, pcre2_match interprets
  return Regex(std::move(program));
}

absl::Status Regex::FindAll(absl::string_view text, std::vector<TextRange>* matches) const {
  static thread_local Scratch scratch;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(scratch.data);
  for (size_t position = 0; position < text.size();) {
    int result = pcre2_match(program_->code, subject, text.size(), position, PCRE2_NO_UTF_CHECK, scratch.data,
                             scratch.context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      result = pcre2_match(program_->code, subject, text.size(), position, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                           scratch.data, scratch.context);
    }
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      return absl::ResourceExhaustedError(absl::StrCat("the tokenizer's regular expression ",
                                                       program_->pattern, " failed at byte ", position, ": ",
                                                       ErrorText(result)));
    }
    if (found[1] > found[0]) {
      matches->push_back({found[0], found[1]});
      position = found[1];
    } else {  // an empty match: go on at the next character
      position = found[1] + 1;
      while (position < text.size() && (static_cast<uint8_t>(text[position]) & 0xC0) == 0x80) ++position;
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort::runtime
