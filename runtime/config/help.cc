#include "runtime/config/help.h"

#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "comm/check.h"
#include "google/protobuf/compiler/parser.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "runtime/config/field_value.h"
#include "runtime/config/schema_text.h"

namespace cohort::runtime {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptorProto;

class SchemaErrors final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    COHORT_CHECK(false, "config.proto:%d: %s", line + 1, message.c_str());
  }
};

// The comments of the schema, by the path of what they belong to: {4, m} is message m, {4, m, 2, f} its field
// f (descriptor.proto, SourceCodeInfo).
using Comments = std::map<std::vector<int>, std::string>;

struct Schema {
  FileDescriptorProto file;
  Comments comments;
};

const Schema& ParsedSchema() {
  static const Schema& schema = *[] {
    auto* result = new Schema;
    const absl::string_view text = kConfigSchemaText;
    google::protobuf::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
    SchemaErrors errors;
    google::protobuf::io::Tokenizer tokenizer(&stream, &errors);
    google::protobuf::compiler::Parser parser;
    parser.RecordErrorsTo(&errors);
    COHORT_CHECK(parser.Parse(&tokenizer, &result->file), "config.proto does not parse");
    for (const auto& location : result->file.source_code_info().location()) {
      std::string comment = location.leading_comments() + location.trailing_comments();
      if (comment.empty()) continue;
      result->comments[std::vector<int>(location.path().begin(), location.path().end())] = std::move(comment);
    }
    return result;
  }();
  return schema;
}

// The comment at `path` as lines "# ...", indented; nothing where there is none.
std::string CommentLines(const std::vector<int>& path, int indent) {
  const Comments& comments = ParsedSchema().comments;
  const auto it = comments.find(path);
  if (it == comments.end()) return "";
  std::string lines;
  for (absl::string_view line : absl::StrSplit(absl::StripSuffix(it->second, "\n"), '\n')) {
    absl::StrAppend(&lines, std::string(indent, ' '), "#", line, "\n");
  }
  return lines;
}

int MessageIndex(const Descriptor& message) {
  const FileDescriptorProto& file = ParsedSchema().file;
  for (int i = 0; i < file.message_type_size(); ++i) {
    if (file.message_type(i).name() == message.name()) return i;
  }
  COHORT_CHECK(false, "config.proto has no message %s", message.name().c_str());
}

void Describe(const Descriptor& message, int indent, std::string* out) {
  constexpr int kMessages = FileDescriptorProto::kMessageTypeFieldNumber;
  constexpr int kFields = google::protobuf::DescriptorProto::kFieldFieldNumber;
  const int index = MessageIndex(message);
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    *out += CommentLines({kMessages, index, kFields, i}, indent);
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      *out += CommentLines({kMessages, MessageIndex(*field.message_type())}, indent);
      absl::StrAppend(out, std::string(indent, ' '), field.name(), ":\n");
      Describe(*field.message_type(), indent + 2, out);
    } else {
      absl::StrAppend(out, std::string(indent, ' '), field.name(), ": <", ValueKind(field), ">\n");
    }
  }
}

}  // namespace

std::string ConfigHelp(const Descriptor& schema) {
  std::string out;
  Describe(schema, 0, &out);
  return out;
}

}  // namespace cohort::runtime
