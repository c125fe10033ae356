#include "runtime/config/field_value.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::runtime {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// The types of field a configuration may have: its C++ type in descriptors, ours, and reflection's suffix.
#define COHORT_CONFIG_INTEGERS(X)     \
  X(CPPTYPE_INT32, int32_t, Int32)    \
  X(CPPTYPE_INT64, int64_t, Int64)    \
  X(CPPTYPE_UINT32, uint32_t, UInt32) \
  X(CPPTYPE_UINT64, uint64_t, UInt64)

template <typename T>
std::string Shortest(T value) {
  char buffer[64];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return std::string(buffer, result.ptr);
}

// JSON strings are YAML strings.
std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string ValueKind(const FieldDescriptor& field) {
  std::string kind;
  switch (field.cpp_type()) {
#define COHORT_X(type, native, suffix) case FieldDescriptor::type:
    COHORT_CONFIG_INTEGERS(COHORT_X)
#undef COHORT_X
    kind = "whole number";
    break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      kind = "number";
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      kind = "true or false";
      break;
    case FieldDescriptor::CPPTYPE_STRING:
      kind = "text";
      break;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return "section";
    default:
      COHORT_CHECK(false, "the schema's field %s has a type that no configuration can have",
                   field.full_name().c_str());
  }
  return field.is_repeated() ? absl::StrCat("list of ", kind) : kind;
}

std::string ExpectedValue(const FieldDescriptor& field) {
  const std::string kind = ValueKind(field);
  const bool countable = kind != "text" && kind != "true or false";
  std::string expected = absl::StrCat(countable ? "a " : "", kind);
  switch (field.cpp_type()) {
#define COHORT_X(type, native, suffix)                                                 \
  case FieldDescriptor::type:                                                          \
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_INT64) {                          \
      absl::StrAppend(&expected, " from ", std::numeric_limits<native>::min(), " to ", \
                      std::numeric_limits<native>::max());                             \
    }                                                                                  \
    break;
    COHORT_CONFIG_INTEGERS(COHORT_X)
#undef COHORT_X
    default:
      break;
  }
  return expected;
}

bool SetField(Message& message, const FieldDescriptor& field, const std::string& text, bool quoted) {
  const Reflection& reflection = *message.GetReflection();
  if (quoted && field.cpp_type() != FieldDescriptor::CPPTYPE_STRING) return false;
  const auto store = [&](auto set, auto add, auto value) {
    (reflection.*(field.is_repeated() ? add : set))(&message, &field, std::move(value));
    return true;
  };
  switch (field.cpp_type()) {
#define COHORT_X(type, native, suffix)                                       \
  case FieldDescriptor::type: {                                              \
    native value;                                                            \
    return absl::SimpleAtoi(text, &value) &&                                 \
           store(&Reflection::Set##suffix, &Reflection::Add##suffix, value); \
  }
    COHORT_CONFIG_INTEGERS(COHORT_X)
#undef COHORT_X
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value;
      return absl::SimpleAtod(text, &value) && std::isfinite(value) &&
             store(&Reflection::SetDouble, &Reflection::AddDouble, value);
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      return (text == "true" || text == "false") &&
             store(&Reflection::SetBool, &Reflection::AddBool, text == "true");
    case FieldDescriptor::CPPTYPE_STRING:
      return store(&Reflection::SetString, &Reflection::AddString, text);
    default:
      return false;
  }
}

std::string FieldText(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& reflection = *message.GetReflection();
  const bool repeated = field.is_repeated();
  switch (field.cpp_type()) {
#define COHORT_X(type, native, suffix)                                                    \
  case FieldDescriptor::type:                                                             \
    return absl::StrCat(repeated ? reflection.GetRepeated##suffix(message, &field, index) \
                                 : reflection.Get##suffix(message, &field));
    COHORT_CONFIG_INTEGERS(COHORT_X)
#undef COHORT_X
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Shortest(repeated ? reflection.GetRepeatedDouble(message, &field, index)
                               : reflection.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return (repeated ? reflection.GetRepeatedBool(message, &field, index)
                       : reflection.GetBool(message, &field))
                 ? "true"
                 : "false";
    case FieldDescriptor::CPPTYPE_STRING:
      return Quoted(repeated ? reflection.GetRepeatedString(message, &field, index)
                             : reflection.GetString(message, &field));
    default:
      COHORT_CHECK(false, "the value of field %s", field.full_name().c_str());
  }
}

}  // namespace cohort::runtime
