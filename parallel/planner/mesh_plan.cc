#include "parallel/planner/mesh_plan.h"

#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::planner {
namespace {

struct ChoiceAxis {
  const char* name;
  int MeshShape::*ranks;
  std::optional<int> Choices::*choice;
};
constexpr ChoiceAxis kChoiceAxes[] = {{"pipeline", &MeshShape::pipeline, &Choices::pipeline},
                                      {"shard", &MeshShape::shard, &Choices::shard},
                                      {"context", &MeshShape::context, &Choices::context},
                                      {"tensor", &MeshShape::tensor, &Choices::tensor},
                                      {"expert", &MeshShape::expert, &Choices::expert}};

absl::Status BadChoice(auto&&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); }

absl::Status ReadChoice(absl::string_view key, absl::string_view value, Choices& choices) {
  for (const ChoiceAxis& axis : kChoiceAxes) {
    if (key != axis.name) continue;
    int ranks = 0;
    if (!absl::SimpleAtoi(value, &ranks) || ranks < 1) {
      return BadChoice(key, "=", value, ": ranks along an axis are a whole number, 1 or more");
    }
    choices.*axis.choice = ranks;
    return absl::OkStatus();
  }
  if (key == "sharding") {
    COHORT_RETURN_IF_ERROR(ParseSharding(value).status());
    choices.sharding = std::string(value);
  } else if (key == "schedule") {
    if (ChunksOf(value) == 0) {
      return BadChoice("schedule=", value, ": the planner prices ", absl::StrJoin(PlannedSchedules(), ", "));
    }
    choices.schedule = std::string(value);
  } else if (key == "micro-batch") {
    int64_t sequences = 0;
    if (!absl::SimpleAtoi(value, &sequences) || sequences < 1) {
      return BadChoice("micro-batch=", value, ": sequences are a whole number, 1 or more");
    }
    choices.micro_batch = sequences;
  } else if (key == "recompute") {
    if (value != "yes" && value != "no") return BadChoice("recompute=", value, ": say yes or no");
    choices.recompute = value == "yes";
  } else {
    return BadChoice("'", key,
                     "' is nothing that a mesh has; there are pipeline, shard, context, tensor, expert, "
                     "sharding, schedule, micro-batch and recompute");
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> PlannedSchedules() {
  std::vector<std::string> names;
  for (const pipeline::ScheduleGenerator& row : pipeline::ScheduleGenerators()) {
    if (row.planned) names.emplace_back(row.name);
  }
  return names;
}

int ChunksOf(absl::string_view schedule) {
  const pipeline::ScheduleGenerator* row = pipeline::FindScheduleGenerator(schedule);
  return row != nullptr && row->planned ? row->min_chunks : 0;
}

std::string MeshPlan::DebugString() const {
  std::vector<std::string> parts;
  for (const ChoiceAxis& axis : kChoiceAxes) {
    if (shape.*axis.ranks > 1) parts.push_back(absl::StrCat(axis.name, "=", shape.*axis.ranks));
  }
  parts.push_back(absl::StrCat("sharding=", sharding_name));
  if (shape.pipeline > 1) parts.push_back(absl::StrCat("schedule=", schedule));
  parts.push_back(absl::StrCat("micro-batch=", micro_batch));
  parts.push_back(absl::StrCat("recompute=", recompute ? "yes" : "no"));
  return absl::StrJoin(parts, " ");
}

bool Choices::Allow(const MeshShape& shape) const {
  for (const ChoiceAxis& axis : kChoiceAxes) {
    const std::optional<int>& choice = this->*axis.choice;
    if (choice.has_value() && *choice != shape.*axis.ranks) return false;
  }
  return true;
}

MeshPlan Choices::Complete(int64_t default_micro_batch) const {
  MeshPlan plan;
  for (const ChoiceAxis& axis : kChoiceAxes) plan.shape.*axis.ranks = (this->*axis.choice).value_or(1);
  if (sharding.has_value()) {
    plan.sharding_name = *sharding;
    const absl::StatusOr<Sharding> parsed = ParseSharding(*sharding);
    COHORT_CHECK(parsed.ok(), "sharding %s, which was proved", sharding->c_str());
    plan.sharding = *parsed;
  }
  plan.schedule = schedule.value_or(plan.schedule);
  plan.chunks = ChunksOf(plan.schedule);
  plan.micro_batch = micro_batch.value_or(default_micro_batch);
  plan.recompute = recompute.value_or(false);
  return plan;
}

absl::StatusOr<Choices> ParseChoices(absl::string_view text) {
  Choices choices;
  std::set<absl::string_view> said;
  for (const absl::string_view item : absl::StrSplit(text, absl::ByAnyChar(", \t"), absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(item, absl::MaxSplits('=', 1));
    if (item.find('=') == absl::string_view::npos) {
      return BadChoice("'", item, "' of a mesh: write key=value, as pipeline=2,sharding=zero-1");
    }
    if (!said.insert(pair.first).second) return BadChoice("'", pair.first, "' is said twice");
    COHORT_RETURN_IF_ERROR(ReadChoice(pair.first, pair.second, choices));
  }
  return choices;
}

}  // namespace cohort::parallel::planner
