#include "comm/tuner/rules.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "comm/tuner/policy.h"

namespace cohort::comm {
namespace {

constexpr char kHeader[] = "cohort-tuning-table 1";

// What was wrong, and in which part of the text.
struct Problem {
  absl::string_view where;
  std::string what;
};
using Maybe = std::optional<Problem>;

absl::string_view Strip(absl::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

Maybe ReadNumber(absl::string_view text, size_t* value) {
  const Problem problem{text, absl::StrCat("'", text, "' is no number as 4096, 32k, 1m or 2g")};
  absl::string_view digits = text;
  int shift = 0;
  if (!digits.empty()) {
    const char unit = static_cast<char>(std::tolower(static_cast<unsigned char>(digits.back())));
    shift = unit == 'k' ? 10 : unit == 'm' ? 20 : unit == 'g' ? 30 : 0;
    if (shift != 0) digits.remove_suffix(1);
  }
  uint64_t number = 0;
  const bool plain = !digits.empty() && std::all_of(digits.begin(), digits.end(),
                                                    [](unsigned char c) { return std::isdigit(c) != 0; });
  if (!plain || !absl::SimpleAtoi(digits, &number) || number > (SIZE_MAX >> 1 >> shift)) return problem;
  *value = static_cast<size_t>(number) << shift;
  return std::nullopt;
}

Maybe ReadRange(absl::string_view text, TuningRange* range) {
  const size_t dash = text.find('-');
  if (dash == absl::string_view::npos) {
    return Problem{text, absl::StrCat("'", text, "' is no range as 0-32k or 32k-inf")};
  }
  if (Maybe wrong = ReadNumber(text.substr(0, dash), &range->from)) return wrong;
  const absl::string_view end = text.substr(dash + 1);
  if (end == "inf") {
    range->to = TuningRange::kNoEnd;
    return std::nullopt;
  }
  if (Maybe wrong = ReadNumber(end, &range->to)) return wrong;
  if (range->to <= range->from) return Problem{text, absl::StrCat("the range ", text, " holds nothing")};
  return std::nullopt;
}

// Also a number, or `*`.
Maybe ReadSet(absl::string_view text, TuningRange* range) {
  if (text == "*") return std::nullopt;
  if (absl::StrContains(text, '-')) return ReadRange(text, range);
  if (Maybe wrong = ReadNumber(text, &range->from)) return wrong;
  range->to = range->from + 1;
  return std::nullopt;
}

Maybe ReadOperation(absl::string_view text, Operation* operation) {
  std::string known;
  for (const Algorithm& algorithm : Algorithms()) {
    const char* name = Name(algorithm.operation);
    if (text == name) {
      *operation = algorithm.operation;
      return std::nullopt;
    }
    if (!absl::StrContains(absl::StrCat(", ", known, ","), absl::StrCat(", ", name, ","))) {
      absl::StrAppend(&known, known.empty() ? "" : ", ", name);
    }
  }
  return Problem{text, absl::StrCat("unknown operation '", text, "'; known: ", known)};
}

// Of rule->operation, with its piece.
Maybe ReadAlgorithm(absl::string_view text, TuningRule* rule) {
  const size_t slash = text.find('/');
  const absl::string_view name = text.substr(0, slash);
  rule->algorithm = FindAlgorithm(rule->operation, name);
  if (rule->algorithm == nullptr) {
    std::string known;
    for (const Algorithm& algorithm : Algorithms()) {
      if (algorithm.operation != rule->operation) continue;
      absl::StrAppend(&known, known.empty() ? "" : ", ", algorithm.name);
    }
    return Problem{name,
                   absl::StrCat(Name(rule->operation), " has no algorithm '", name, "'; it has: ", known)};
  }
  if (slash == absl::string_view::npos) return std::nullopt;
  const absl::string_view piece = text.substr(slash + 1);
  if (!rule->algorithm->pipelined) {
    return Problem{piece, absl::StrCat(name, " of ", Name(rule->operation), " does not cut pieces")};
  }
  if (Maybe wrong = ReadNumber(piece, &rule->piece_bytes)) return wrong;
  if (rule->piece_bytes == 0) return Problem{piece, "a piece of no bytes"};
  return std::nullopt;
}

Maybe ReadOverride(absl::string_view text, TuningRules* rules) {
  const size_t name_end = text.find_first_of(":=");
  TuningRule rule;
  if (Maybe wrong = ReadOperation(Strip(text.substr(0, name_end)), &rule.operation)) return wrong;
  if (name_end == absl::string_view::npos) {
    return Problem{text, absl::StrCat("'", text, "' names no algorithm: ", text, "=NAME")};
  }
  const size_t before = rules->size();
  for (absl::string_view part : absl::StrSplit(text.substr(name_end + 1), ',')) {
    const absl::string_view whole = part;
    rule.bytes = {};
    rule.piece_bytes = 0;
    if (text[name_end] == ':') {
      const size_t equals = part.find('=');
      if (equals == absl::string_view::npos) {
        return Problem{part, absl::StrCat("'", part, "' is no RANGE=ALGORITHM, as 0-32k=ring")};
      }
      if (Maybe wrong = ReadRange(Strip(part.substr(0, equals)), &rule.bytes)) return wrong;
      part.remove_prefix(equals + 1);
    }
    if (Maybe wrong = ReadAlgorithm(Strip(part), &rule)) return wrong;
    for (size_t i = 0; i < rules->size(); ++i) {
      const TuningRule& other = (*rules)[i];
      if (other.operation != rule.operation || other.bytes.to <= rule.bytes.from ||
          rule.bytes.to <= other.bytes.from) {
        continue;
      }
      return Problem{i < before ? text : whole, absl::StrCat("sizes of ", Name(rule.operation),
                                                             " that an earlier range has: ranges overlap")};
    }
    rules->push_back(rule);
  }
  return std::nullopt;
}

Maybe ReadRule(const std::vector<absl::string_view>& words, TuningRule* rule) {
  if (words.size() != 5) return Problem{words[0], "a rule is: operation hosts ranks bytes algorithm"};
  if (Maybe wrong = ReadOperation(words[0], &rule->operation)) return wrong;
  if (Maybe wrong = ReadSet(words[1], &rule->hosts)) return wrong;
  if (Maybe wrong = ReadSet(words[2], &rule->ranks)) return wrong;
  if (words[3] != "*") {
    if (Maybe wrong = ReadRange(words[3], &rule->bytes)) return wrong;
  }
  return ReadAlgorithm(words[4], rule);
}

std::string Format(const TuningRange& range, bool numbers) {
  if (range.everything()) return "*";
  if (range.to == TuningRange::kNoEnd) return absl::StrCat(range.from, "-inf");
  if (numbers && range.to == range.from + 1) return absl::StrCat(range.from);
  return absl::StrCat(range.from, "-", range.to);
}

}  // namespace

absl::StatusOr<TuningRules> ParseOverrides(absl::string_view text) {
  TuningRules rules;
  for (const absl::string_view entry : absl::StrSplit(text, ';')) {
    if (Strip(entry).empty()) continue;
    if (const Maybe wrong = ReadOverride(Strip(entry), &rules)) {
      return absl::InvalidArgumentError(absl::StrCat("character ", wrong->where.data() - text.data() + 1,
                                                     " of '", text, "': ", wrong->what));
    }
  }
  return rules;
}

absl::StatusOr<TuningRules> ParseTuningTable(absl::string_view text, absl::string_view source) {
  TuningRules rules;
  bool header = false;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = line.substr(0, line.find('#'));
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    Maybe wrong;
    if (!header) {
      header = words.size() == 2 && absl::StrCat(words[0], " ", words[1]) == kHeader;
      if (!header) wrong = Problem{line, absl::StrCat("the first line must be '", kHeader, "'")};
    } else {
      wrong = ReadRule(words, &rules.emplace_back());
    }
    if (wrong) return absl::InvalidArgumentError(absl::StrCat(source, ":", number, ": ", wrong->what));
  }
  if (!header) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": empty: the first line must be '", kHeader, "'"));
  }
  return rules;
}

std::string FormatTuningTable(absl::Span<const TuningRule> rules) {
  std::string text = absl::StrCat(kHeader, "\n# operation hosts ranks bytes algorithm\n");
  for (const TuningRule& rule : rules) {
    absl::StrAppend(&text, Name(rule.operation), " ", Format(rule.hosts, true), " ", Format(rule.ranks, true),
                    " ", Format(rule.bytes, false), " ", rule.algorithm->name);
    if (rule.piece_bytes != 0) absl::StrAppend(&text, "/", rule.piece_bytes);
    text += '\n';
  }
  return text;
}

TuningRules RulesOf(Operation operation, int hosts, int ranks, absl::Span<const MeasuredTime> times) {
  std::map<size_t, std::vector<const MeasuredTime*>> by_size;
  for (const MeasuredTime& time : times) by_size[time.bytes].push_back(&time);
  TuningRules rules;
  size_t last = 0;
  for (auto& [bytes, contestants] : by_size) {
    const auto faster = [](const MeasuredTime* a, const MeasuredTime* b) { return a->seconds < b->seconds; };
    const MeasuredTime* best = *std::min_element(contestants.begin(), contestants.end(), faster);
    if (!rules.empty()) {
      const auto same = std::find_if(contestants.begin(), contestants.end(), [&](const MeasuredTime* time) {
        return time->algorithm == rules.back().algorithm;
      });
      if (same != contestants.end() && (*same)->seconds <= best->seconds * policy::kMeasuredNoise)
        best = *same;
    }
    if (rules.empty() || rules.back().algorithm != best->algorithm) {
      TuningRule rule;
      rule.operation = operation;
      rule.hosts = {static_cast<size_t>(hosts), static_cast<size_t>(hosts) + 1};
      rule.ranks = {static_cast<size_t>(ranks), static_cast<size_t>(ranks) + 1};
      rule.algorithm = best->algorithm;
      if (!rules.empty()) {
        const double between = std::sqrt(static_cast<double>(last) * static_cast<double>(bytes));
        rule.bytes.from = rules.back().bytes.to = std::max(last + 1, static_cast<size_t>(between));
      }
      rules.push_back(rule);
    }
    last = bytes;
  }
  return rules;
}

TuningRules MergeTuningTables(TuningRules table, const TuningRules& own) {
  std::erase_if(table, [&](const TuningRule& rule) {
    return std::any_of(own.begin(), own.end(), [&](const TuningRule& other) {
      return other.operation == rule.operation && other.hosts == rule.hosts && other.ranks == rule.ranks;
    });
  });
  table.insert(table.begin(), own.begin(), own.end());
  return table;
}

}  // namespace cohort::comm
