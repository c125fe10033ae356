// One value between YAML and a Protobuf field.
#pragma once

#include <string>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace cohort::runtime {

// What a user writes for this field: "whole number", "text", "true or false", "list of text", "section".
std::string ValueKind(const google::protobuf::FieldDescriptor& field);
// The same for an error message, with the range of narrow types: "a whole number from 0 to 4294967295".
std::string ExpectedValue(const google::protobuf::FieldDescriptor& field);

// Sets the field (adds to it where it is repeated) from the scalar `text`; false where it is no value of the
// field's type. `quoted`: it stood in quotes, so it is text and nothing else.
bool SetField(google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field,
              const std::string& text, bool quoted);

// The field's value (element `index` of a repeated one) as YAML.
std::string FieldText(const google::protobuf::Message& message,
                      const google::protobuf::FieldDescriptor& field, int index);

}  // namespace cohort::runtime
