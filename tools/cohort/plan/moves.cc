#include "tools/cohort/plan/moves.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "comm/check.h"
#include "runtime/file.h"

namespace cohort::tools {
namespace {

using parallel::PieceCopy;

struct Link {
  std::string name;
  int64_t bytes = 0, messages = 0;
};
using Links = std::map<std::pair<int, int>, Link>;

std::string LinksText(const char* what, const Links& all, int shown) {
  std::vector<Link> links;
  for (const auto& [ends, link] : all) links.push_back(link);
  std::stable_sort(links.begin(), links.end(),
                   [](const Link& a, const Link& b) { return a.bytes > b.bytes; });
  const auto listed = std::min(links.size(), static_cast<size_t>(shown));
  std::string text;
  for (size_t i = 0; i < listed; ++i) {
    absl::StrAppendFormat(&text, "  %-24s %14d bytes in %d messages\n", links[i].name, links[i].bytes,
                          links[i].messages);
  }
  if (listed < links.size()) {
    absl::StrAppendFormat(&text, "  and %d more %s (--links)\n", links.size() - listed, what);
  }
  return text;
}

}  // namespace

absl::StatusOr<AskedMesh> ParseMesh(const std::string& flag, const std::string& text) {
  std::vector<absl::string_view> rest;
  int ranks = 0;
  for (absl::string_view item : absl::StrSplit(text, absl::ByAnyChar(", \t"), absl::SkipEmpty())) {
    if (!absl::ConsumePrefix(&item, "ranks=")) {
      rest.push_back(item);
    } else if (!absl::SimpleAtoi(item, &ranks) || ranks < 1 || ranks > 1 << 16) {
      return absl::InvalidArgumentError(absl::StrCat(flag, " ", text, ": ranks are 1 to 65536"));
    }
  }
  const auto choices = parallel::planner::ParseChoices(absl::StrJoin(rest, " "));
  if (!choices.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", text, ": ", choices.status().message()));
  }
  const parallel::planner::MeshPlan plan = choices->Complete(1);
  const parallel::MeshShape& shape = plan.shape;
  const int needed = shape.pipeline * std::max(shape.shard * shape.context * shape.tensor, shape.expert);
  AskedMesh asked;
  asked.ranks = ranks > 0 ? ranks : needed;
  asked.arrangement.shape = shape;
  asked.arrangement.sharding = plan.sharding;
  asked.arrangement.schedule = plan.schedule;
  asked.arrangement.stages_per_rank = shape.pipeline > 1 ? plan.chunks : 1;
  asked.plan = plan;
  return asked;
}

absl::StatusOr<runtime::ModelConfig> ReadModel(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return runtime::ModelConfig::Load(path);
  COHORT_ASSIGN_OR_RETURN(const std::string text, runtime::ReadFile(path));
  return runtime::ModelConfig::FromJson(text, path);
}

std::string MovesText(const parallel::Move& move, const std::vector<int>& processes,
                      const std::vector<int>& hosts, int shown) {
  Links ranks, between;
  for (const PieceCopy& copy : move.plan.copies) {
    if (copy.stays()) continue;
    const int64_t bytes = copy.elements() * static_cast<int64_t>(SizeOf(DataType::kF32));
    const auto add = [&](Links& links, const char* what, int a, int b) {
      Link& link = links[{a, b}];
      if (link.messages == 0) link.name = absl::StrFormat("%s %d -> %d", what, a, b);
      link.bytes += bytes;
      ++link.messages;
    };
    const auto source = static_cast<size_t>(copy.source), target = static_cast<size_t>(copy.destination);
    add(ranks, "rank", processes[source], processes[target]);
    if (hosts[source] != hosts[target]) add(between, "host", hosts[source], hosts[target]);
  }
  std::string text;
  if (!between.empty()) absl::StrAppend(&text, "between hosts:\n", LinksText("hosts", between, shown));
  if (!ranks.empty()) {
    absl::StrAppend(&text, "between ranks (numbers of the old mesh, then newcomers):\n",
                    LinksText("pairs", ranks, shown));
  }
  return text;
}

}  // namespace cohort::tools
