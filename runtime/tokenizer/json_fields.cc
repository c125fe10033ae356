#include "runtime/tokenizer/json_fields.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::runtime {
using nlohmann::json;

absl::StatusOr<json> ReadJsonFile(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is a folder; name the JSON file in it"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path, ": ", std::strerror(errno)));
  std::stringstream buffer;
  buffer << file.rdbuf();
  if (file.bad()) return absl::DataLossError(absl::StrCat("cannot read ", path));
  try {  // the only interface of the parser that tells where it failed
    return json::parse(std::move(buffer).str());
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not valid JSON: ", error.what()));
  }
}

absl::StatusOr<JsonFields> JsonFields::Of(const json& value, std::string where) {
  if (!value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": expected an object, found ", value.type_name()));
  }
  return JsonFields(value, std::move(where));
}

const json* JsonFields::Find(absl::string_view key) const {
  const auto found = value_->find(std::string(key));
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

absl::Status JsonFields::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat(where_, ": ", message));
}

absl::StatusOr<const json*> JsonFields::Array(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(absl::StrCat("\"", key, "\" is missing"));
  if (!value->is_array())
    return Error(absl::StrCat("\"", key, "\" must be a list, it is ", value->type_name()));
  return value;
}

absl::StatusOr<std::string> JsonFields::String(absl::string_view key) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(absl::StrCat("\"", key, "\" is missing"));
  if (!value->is_string())
    return Error(absl::StrCat("\"", key, "\" must be a string, it is ", value->type_name()));
  return value->get_ref<const std::string&>();
}

absl::StatusOr<std::string> JsonFields::StringOr(absl::string_view key, absl::string_view fallback) const {
  if (Find(key) == nullptr) return std::string(fallback);
  return String(key);
}

absl::StatusOr<bool> JsonFields::BoolOr(absl::string_view key, bool fallback) const {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    return Error(absl::StrCat("\"", key, "\" must be true or false, it is ", value->type_name()));
  }
  return value->get<bool>();
}

absl::StatusOr<int64_t> JsonFields::Int(absl::string_view key, int64_t low, int64_t high) const {
  const json* value = Find(key);
  if (value == nullptr) return Error(absl::StrCat("\"", key, "\" is missing"));
  const bool fits = value->is_number_unsigned() ? value->get<uint64_t>() <= uint64_t{INT64_MAX}
                                                : value->is_number_integer();
  if (!fits || value->get<int64_t>() < low || value->get<int64_t>() > high) {
    return Error(
        absl::StrCat("\"", key, "\" must be an integer from ", low, " to ", high, ", it is ", value->dump()));
  }
  return value->get<int64_t>();
}

}  // namespace cohort::runtime
