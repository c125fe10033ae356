#include "runtime/config/locate.h"

#include <yaml-cpp/yaml.h>

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace cohort::runtime {
namespace {

// "optimizer.lr is -1; ..." speaks of optimizer.lr, `section model: "num_experts" must ...` of model.num_experts.
std::string KeyOf(absl::string_view message) {
  if (absl::ConsumePrefix(&message, "section ")) {
    const std::vector<std::string> parts = absl::StrSplit(message, absl::MaxSplits('"', 2));
    if (parts.size() < 3) return "";
    return absl::StrCat(absl::StripSuffix(parts[0], ": "), ".", parts[1]);
  }
  return std::string(message.substr(0, message.find(' ')));
}

// The line of a key in the file, from 1.
std::optional<int> LineOf(const std::string& key, const std::string& file) {
  try {
    YAML::Node node = YAML::LoadFile(file);
    for (const std::string& name : std::vector<std::string>(absl::StrSplit(key, '.'))) {
      if (!node.IsMap()) return std::nullopt;
      const YAML::Node child = node[name];
      if (!child.IsDefined()) return std::nullopt;
      node.reset(child);
    }
    return node.Mark().line + 1;
  } catch (const YAML::Exception&) {
    return std::nullopt;  // the file has gone or changed since it was read
  }
}

}  // namespace

absl::Status WithPlace(const absl::Status& status, const std::string& file,
                       const std::vector<std::string>& overrides) {
  if (status.ok()) return status;
  const std::string key = KeyOf(status.message());
  if (key.empty()) return status;
  std::string place;
  if (const auto line = LineOf(key, file)) place = absl::StrCat(file, ":", *line);
  for (const std::string& assignment : overrides) {
    if (absl::StartsWith(assignment, absl::StrCat(key, "="))) place = absl::StrCat("--set ", assignment);
  }
  if (place.empty()) return status;
  return absl::Status(status.code(), absl::StrCat(place, ": ", status.message()));
}

}  // namespace cohort::runtime
