// YAML checked against a Protobuf message: the message's fields are the keys, its nested messages the
// sections.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"

namespace cohort::runtime {

// Fills `message` from the text. INVALID_ARGUMENT says "file:line: ..." and what was expected: unknown keys
// (with the nearest known one), values of a wrong type or range, keys given twice, an empty text, broken
// YAML.
absl::Status ParseYaml(const std::string& text, const std::string& file, google::protobuf::Message& message);

// Replaces one field: "section.key=value", value as in YAML (a list: [a, b]). The same checks; messages begin
// with
// "--set <text>".
absl::Status ApplyOverride(const std::string& assignment, google::protobuf::Message& message);

// ParseYaml of a file, then the overrides in their order. NOT_FOUND where there is no such file.
absl::Status LoadYaml(const std::string& file, const std::vector<std::string>& overrides,
                      google::protobuf::Message& message);

// The fields that are set, as YAML that ParseYaml reads back to an equal message.
std::string ToYaml(const google::protobuf::Message& message);

}  // namespace cohort::runtime
