#include "parallel/pipeline/schedule_file.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "parallel/pipeline/check.h"

namespace cohort::parallel::pipeline {
namespace {

constexpr int kLargest = 1'000'000;  // of stages and micro-batches

std::optional<int> NumberOf(absl::string_view text) {
  int number = 0;
  const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
  if (!digits || !absl::SimpleAtoi(text, &number) || number > kLargest) return std::nullopt;
  return number;
}

std::optional<Action> ActionOf(absl::string_view cell) {
  const size_t letter = cell.find_first_not_of("0123456789");
  if (letter == absl::string_view::npos) return std::nullopt;
  const std::optional<int> stage = NumberOf(cell.substr(0, letter));
  const std::optional<int> micro_batch = NumberOf(cell.substr(letter + 1));
  if (!stage || !micro_batch) return std::nullopt;
  for (int kind = 0; kind < kNumActionKinds; ++kind) {
    if (cell[letter] == Letter(static_cast<ActionKind>(kind))) {
      return Action{static_cast<ActionKind>(kind), *stage, *micro_batch};
    }
  }
  return std::nullopt;
}

struct Home {
  int rank;
  int line;
};

}  // namespace

absl::StatusOr<Schedule> ParseSchedule(absl::string_view text, absl::string_view path) {
  Schedule schedule;
  std::map<int, Home> homes;  // by stage
  std::vector<int> lines;     // by rank
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line.front() == '#') continue;
    const int rank = schedule.ranks();
    lines.push_back(number);
    std::vector<Action>& list = schedule.actions.emplace_back();
    for (absl::string_view cell : absl::StrSplit(line, ',')) {
      cell = absl::StripAsciiWhitespace(cell);
      if (cell.empty()) continue;
      const std::optional<Action> action = ActionOf(cell);
      const auto wrong = [&](const std::string& what) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ":", number, ": '", cell.substr(0, 40), "': ", what));
      };
      if (!action) {
        return wrong(
            "an action is a stage, one of F I W B, and a micro-batch, as 2F0, with commas between them");
      }
      const auto [home, added] = homes.emplace(action->stage, Home{rank, number});
      if (home->second.rank != rank) {
        return wrong(absl::StrCat("stage ", action->stage, " is on rank ", home->second.rank,
                                  " already (line ", home->second.line, "), and this is rank ", rank));
      }
      list.push_back(*action);
      schedule.micro_batches = std::max(schedule.micro_batches, action->micro_batch + 1);
    }
    if (list.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": rank ", rank, " has no action"));
    }
  }
  if (homes.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": empty: a schedule has a line a rank, as 0F0,0B0"));
  }
  for (const auto& [stage, home] : homes) {
    if (stage != schedule.stages()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ":", home.line, ": has stage ", stage,
                                                     ", but no line has stage ", schedule.stages()));
    }
    schedule.rank_of.push_back(home.rank);
  }
  if (const std::optional<ScheduleFault> fault = FindFault(schedule)) {
    const std::string line = fault->rank < 0 ? "" : absl::StrCat(":", lines[fault->rank]);
    return absl::InvalidArgumentError(absl::StrCat(path, line, ": ", fault->what));
  }
  return schedule;
}

std::string ScheduleText(const Schedule& schedule) {
  std::string text = absl::StrCat("# ", schedule.stages(), " stages, ", schedule.ranks(), " ranks, ",
                                  schedule.micro_batches, " micro-batches\n");
  for (const std::vector<Action>& list : schedule.actions) {
    absl::StrAppend(&text,
                    absl::StrJoin(list, ",",
                                  [](std::string* out, const Action& action) {
                                    absl::StrAppend(out, action.DebugString());
                                  }),
                    "\n");
  }
  return text;
}

}  // namespace cohort::parallel::pipeline
