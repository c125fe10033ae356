#include "tools/cohort/flight_file.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::tools {
namespace {

using Json = nlohmann::json;

// Takes values out of one object; the first thing that is wrong stays.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) Wrong("expected an object");
  }

  template <typename T>
  void Number(const char* key, T* value, bool needed = true) {
    const Json* field = Find(key, needed);
    if (field == nullptr) return;
    if (field->is_number_unsigned()) {
      const uint64_t number = field->get<uint64_t>();
      if (number <= static_cast<uint64_t>(std::numeric_limits<T>::max())) {
        *value = static_cast<T>(number);
        return;
      }
    }
    Wrong(absl::StrCat("'", key, "' must be a whole number from 0 to ", std::numeric_limits<T>::max()));
  }
  void Text(const char* key, std::string* value, bool needed = true) {
    const Json* field = Find(key, needed);
    if (field == nullptr) return;
    if (!field->is_string()) return Wrong(absl::StrCat("'", key, "' must be a text"));
    *value = field->get<std::string>();
  }
  void Flag(const char* key, bool* value) {
    const Json* field = Find(key, /*needed=*/false);
    if (field == nullptr) return;
    if (!field->is_boolean()) return Wrong(absl::StrCat("'", key, "' must be true or false"));
    *value = field->get<bool>();
  }
  void Ranks(const char* key, std::vector<int>* value, bool needed) {
    const Json* field = Find(key, needed);
    if (field == nullptr) return;
    const Json list = field->is_array() ? *field : Json::array({-1});
    for (const Json& rank : list) {
      if (!rank.is_number_unsigned() ||
          rank.get<uint64_t>() > static_cast<uint64_t>(comm::policy::kMaxMembers)) {
        return Wrong(absl::StrCat("'", key, "' must be a list of ranks"));
      }
      value->push_back(rank.get<int>());
    }
  }
  const Json* List(const char* key) {
    const Json* field = Find(key, /*needed=*/true);
    if (field == nullptr) return nullptr;
    if (!field->is_array()) {
      Wrong(absl::StrCat("'", key, "' must be a list"));
      return nullptr;
    }
    return field;
  }

  const absl::Status& status() const { return status_; }

 private:
  const Json* Find(const char* key, bool needed) {
    if (!status_.ok()) return nullptr;
    const auto at = object_.find(key);
    if (at != object_.end()) return &*at;
    if (needed) Wrong(absl::StrCat("'", key, "' is missing"));
    return nullptr;
  }
  void Wrong(const std::string& what) {
    status_.Update(absl::InvalidArgumentError(absl::StrCat(where_, ": ", what)));
  }

  const Json& object_;
  const std::string where_;
  absl::Status status_;
};

absl::StatusOr<comm::FlightGroup> ParseGroup(const Json& json, const std::string& where) {
  comm::FlightGroup group;
  Fields fields(json, where);
  fields.Number("group", &group.context);
  fields.Number("epoch", &group.epoch);
  fields.Number("begun", &group.begun);
  fields.Ranks("members", &group.members, /*needed=*/true);
  COHORT_RETURN_IF_ERROR(fields.status());
  return group;
}

absl::StatusOr<comm::FlightOperation> ParseOperation(const Json& json, const std::string& where) {
  comm::FlightOperation operation;
  Fields fields(json, where);
  fields.Number("number", &operation.number);
  fields.Number("group", &operation.context);
  fields.Number("epoch", &operation.epoch);
  fields.Number("sequence", &operation.sequence);
  fields.Number("peer", &operation.peer, /*needed=*/false);
  fields.Number("tag", &operation.tag, /*needed=*/false);
  fields.Flag("sends", &operation.sends);
  fields.Text("operation", &operation.operation);
  fields.Text("dtype", &operation.dtype);
  fields.Text("reduce", &operation.reduce);
  fields.Text("algorithm", &operation.algorithm);
  fields.Number("count", &operation.count);
  fields.Number("digest", &operation.digest);
  fields.Number("codec", &operation.codec);
  fields.Number("began_ns", &operation.began);
  fields.Number("ended_ns", &operation.ended, /*needed=*/false);
  fields.Text("status", &operation.status, /*needed=*/operation.ended != 0);
  fields.Text("message", &operation.message, /*needed=*/false);
  fields.Ranks("awaits", &operation.awaits, /*needed=*/false);
  COHORT_RETURN_IF_ERROR(fields.status());
  return operation;
}

}  // namespace

absl::StatusOr<comm::FlightRecord> ParseFlightRecord(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("not JSON, or cut off");
  int version = 0;
  comm::FlightRecord record;
  Fields fields(json, "the record");
  fields.Number("cohort_flight_record", &version);
  if (fields.status().ok() && version != 1) {
    return absl::InvalidArgumentError(absl::StrCat("a flight record of version ", version, "; this reads 1"));
  }
  fields.Number("rank", &record.rank);
  fields.Number("size", &record.size);
  fields.Text("host", &record.host);
  fields.Number("pid", &record.pid);
  fields.Number("monotonic_ns", &record.monotonic);
  fields.Number("unix_ns", &record.unix_time);
  const Json* groups = fields.List("groups");
  const Json* operations = fields.List("operations");
  COHORT_RETURN_IF_ERROR(fields.status());
  for (const Json& group : *groups) {
    COHORT_ASSIGN_OR_RETURN(comm::FlightGroup parsed,
                            ParseGroup(group, absl::StrCat("groups[", record.groups.size(), "]")));
    record.groups.push_back(std::move(parsed));
  }
  for (const Json& operation : *operations) {
    COHORT_ASSIGN_OR_RETURN(
        comm::FlightOperation parsed,
        ParseOperation(operation, absl::StrCat("operations[", record.operations.size(), "]")));
    record.operations.push_back(std::move(parsed));
  }
  return record;
}

absl::StatusOr<comm::FlightRecord> ReadFlightRecord(const std::string& path) {
  std::error_code ignored;  // a stream of a folder throws
  if (std::filesystem::is_directory(path, ignored)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a folder; name the files in it"));
  }
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.good() && !file.eof()) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  absl::StatusOr<comm::FlightRecord> record = ParseFlightRecord(text);
  if (!record.ok()) {
    return absl::Status(record.status().code(), absl::StrCat(path, ": ", record.status().message()));
  }
  return record;
}

}  // namespace cohort::tools
