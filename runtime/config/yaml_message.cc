#include "runtime/config/yaml_message.h"

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "runtime/config/field_value.h"
#include "runtime/config/nearest_name.h"
#include "runtime/config/policy.h"
#include "runtime/file.h"

namespace cohort::runtime {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

bool IsSection(const FieldDescriptor& field) { return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE; }

absl::Status Bad(const std::string& place, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(place, ": ", problem));
}

// Where a key of this name exists, if not here: "optimizer.lr". Empty where nowhere.
std::string FindElsewhere(const Descriptor& schema, const std::string& prefix, const std::string& name) {
  for (int i = 0; i < schema.field_count(); ++i) {
    const FieldDescriptor& field = *schema.field(i);
    if (field.name() == name) return prefix + name;
    if (!IsSection(field)) continue;
    std::string found = FindElsewhere(*field.message_type(), absl::StrCat(prefix, field.name(), "."), name);
    if (!found.empty()) return found;
  }
  return "";
}

std::string UnknownKey(const std::string& name, const Descriptor& here, const std::string& section,
                       const Descriptor& root) {
  std::vector<std::string> known;
  for (int i = 0; i < here.field_count(); ++i) known.push_back(here.field(i)->name());
  std::string message =
      absl::StrCat("unknown key '", name, "' ",
                   section.empty() ? "at the top level" : absl::StrCat("in section ", section));
  std::string meant = NearestName(name, known);
  if (meant.empty()) meant = FindElsewhere(root, "", name);
  if (!meant.empty()) {
    return absl::StrCat(message, "; did you mean '", meant, meant == name ? "' at the top level?" : "'?");
  }
  return absl::StrCat(message, "; known keys: ", absl::StrJoin(known, ", "));
}

// What a node holds, for "expected X, found Y".
std::string Found(const YAML::Node& node) {
  if (node.IsScalar()) return absl::StrCat(node.Tag() == "!" ? "text " : "", "'", node.Scalar(), "'");
  return node.IsNull() ? "nothing" : node.IsSequence() ? "a list" : "a section";
}

// One walk over a document. Fails with the first problem.
class Walk {
 public:
  Walk(std::string file, const Descriptor& root) : file_(std::move(file)), root_(root) {}

  // `section` is the dotted name of this map, "" at the top.
  absl::Status Section(const YAML::Node& node, const std::string& section, Message& message) {
    const Descriptor& schema = *message.GetDescriptor();
    std::map<std::string, int> lines;
    for (const auto& pair : node) {
      if (!pair.first.IsScalar()) return Bad(Place(pair.first), "expected a key, found " + Found(pair.first));
      const std::string name = pair.first.Scalar();
      const FieldDescriptor* field = schema.FindFieldByName(name);
      if (field == nullptr) return Bad(Place(pair.first), UnknownKey(name, schema, section, root_));
      const std::string key = section.empty() ? name : absl::StrCat(section, ".", name);
      const auto [before, is_new] = lines.emplace(name, Line(pair.first));
      if (!is_new) {
        return Bad(Place(pair.first), absl::StrCat(key, " is given twice, first on line ", before->second));
      }
      COHORT_RETURN_IF_ERROR(Value(pair.first, pair.second, key, *field, message));
    }
    return absl::OkStatus();
  }

 private:
  static int Line(const YAML::Node& node) { return node.Mark().line + 1; }
  std::string Place(const YAML::Node& node) const { return absl::StrCat(file_, ":", Line(node)); }

  absl::Status Value(const YAML::Node& key_node, const YAML::Node& node, const std::string& key,
                     const FieldDescriptor& field, Message& message) {
    const auto wrong = [&](const YAML::Node& value) {
      return Bad(Place(value.IsNull() ? key_node : value),
                 absl::StrCat(key, ": expected ", ExpectedValue(field), ", found ", Found(value)));
    };
    if (IsSection(field)) {
      if (node.IsNull()) return absl::OkStatus();  // every key of the section commented out
      if (!node.IsMap()) return wrong(node);
      return Section(node, key, *message.GetReflection()->MutableMessage(&message, &field));
    }
    if (field.is_repeated() && node.IsSequence()) {
      for (const YAML::Node& element : node) {
        if (!element.IsScalar() || !SetField(message, field, element.Scalar(), element.Tag() == "!")) {
          return wrong(element);
        }
      }
      return absl::OkStatus();
    }
    // A list of one may be written without brackets.
    if (!node.IsScalar() || !SetField(message, field, node.Scalar(), node.Tag() == "!")) return wrong(node);
    return absl::OkStatus();
  }

  const std::string file_;
  const Descriptor& root_;
};

absl::StatusOr<std::vector<YAML::Node>> Documents(const std::string& text, const std::string& file) {
  try {
    return YAML::LoadAll(text);
  } catch (const YAML::Exception& e) {
    return Bad(absl::StrCat(file, ":", e.mark.line + 1), "not YAML: " + e.msg);
  }
}

void Write(const Message& message, int indent, std::string* out) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    absl::StrAppend(out, std::string(indent, ' '), field->name(), ":");
    if (IsSection(*field)) {
      *out += "\n";
      Write(reflection.GetMessage(message, field), indent + 2, out);
    } else if (field->is_repeated()) {
      std::vector<std::string> values;
      for (int i = 0; i < reflection.FieldSize(message, field); ++i)
        values.push_back(FieldText(message, *field, i));
      absl::StrAppend(out, " [", absl::StrJoin(values, ", "), "]\n");
    } else {
      absl::StrAppend(out, " ", FieldText(message, *field, 0), "\n");
    }
  }
}

}  // namespace

absl::Status ParseYaml(const std::string& text, const std::string& file, Message& message) {
  COHORT_ASSIGN_OR_RETURN(const std::vector<YAML::Node> documents, Documents(text, file));
  if (documents.empty() || documents[0].IsNull()) return Bad(file, "the file is empty");
  if (documents.size() > 1) return Bad(file, "several YAML documents (a line ---) in one file");
  if (!documents[0].IsMap())
    return Bad(file + ":1", "expected 'key: value' lines, found " + Found(documents[0]));
  return Walk(file, *message.GetDescriptor()).Section(documents[0], "", message);
}

absl::Status ApplyOverride(const std::string& assignment, Message& message) {
  const std::string place = absl::StrCat("--set ", assignment);
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) return Bad(place, "expected section.key=value");
  const std::vector<std::string> keys = absl::StrSplit(assignment.substr(0, equals), '.');
  const std::string text = assignment.substr(equals + 1);

  Message* section = &message;
  std::string name;
  for (size_t i = 0; i < keys.size(); ++i) {
    const FieldDescriptor* field = section->GetDescriptor()->FindFieldByName(keys[i]);
    if (field == nullptr) {
      return Bad(place, UnknownKey(keys[i], *section->GetDescriptor(), name, *message.GetDescriptor()));
    }
    absl::StrAppend(&name, name.empty() ? "" : ".", keys[i]);
    const bool is_last = i + 1 == keys.size();
    if (!is_last && !IsSection(*field)) return Bad(place, absl::StrCat(name, " is no section"));
    if (!is_last) {
      section = section->GetReflection()->MutableMessage(section, field);
      continue;
    }
    if (IsSection(*field)) return Bad(place, absl::StrCat(name, " is a section: set one of its keys"));
    section->GetReflection()->ClearField(section, field);
    // Text is taken as it stands, whatever YAML would see in it.
    if (!field->is_repeated() && field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      SetField(*section, *field, text, /*quoted=*/true);
      return absl::OkStatus();
    }
    COHORT_ASSIGN_OR_RETURN(const std::vector<YAML::Node> values, Documents(text, place));
    const YAML::Node value = values.empty() ? YAML::Node() : values[0];
    const std::vector<YAML::Node> elements = field->is_repeated() && value.IsSequence()
                                                 ? std::vector<YAML::Node>(value.begin(), value.end())
                                                 : std::vector<YAML::Node>{value};
    for (const YAML::Node& element : elements) {
      if (!element.IsScalar() || !SetField(*section, *field, element.Scalar(), element.Tag() == "!")) {
        return Bad(place,
                   absl::StrCat(name, ": expected ", ExpectedValue(*field), ", found ", Found(element)));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status LoadYaml(const std::string& file, const std::vector<std::string>& overrides, Message& message) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(file, error);
  if (error) return ErrnoStatus(error.value(), "open the configuration", file);
  if (bytes > static_cast<uintmax_t>(config_policy::kMaxFileBytes)) {
    return Bad(file, absl::StrCat(bytes, " bytes are no configuration"));
  }
  COHORT_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  COHORT_RETURN_IF_ERROR(ParseYaml(text, file, message));
  for (const std::string& assignment : overrides) COHORT_RETURN_IF_ERROR(ApplyOverride(assignment, message));
  return absl::OkStatus();
}

std::string ToYaml(const Message& message) {
  std::string out;
  Write(message, 0, &out);
  return out;
}

}  // namespace cohort::runtime
