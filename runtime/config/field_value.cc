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

std::string ExpectedValue(const FieldDescriptor& field) {
  std::string what;
  switch (field.cpp_type()) {
#define COHORT_X(type, native, suffix)                                                            \
  case FieldDescriptor::type:                                                                     \
    what = sizeof(native) == 8 && std::numeric_limits<native>::is_signed                          \
               ? std::string("a whole number")                                                    \
               : absl::StrCat("a whole number from ", std::numeric_limits<native>::min(), " to ", \
                              std::numeric_limits<native>::max());                                \
    break;
    COHORT_CONFIG_INTEGERS(COHORT_X)
#undef COHORT_X
    case FieldDescriptor::CPPTYPE_DOUBLE:
      what = "a number";
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      what = "true or false";
      break;
    case FieldDescriptor::CPPTYPE_STRING:
      what = "text";
      break;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return "a section";
    default:
      COHORT_CHECK(false, "the schema's field %s has a type that no configuration can have",
                   field.full_name().c_str());
  }
  return field.is_repeated() ? absl::StrCat("a list of ", what) : what;
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
