// Broken tokenizer.json files and broken text: clear errors, never a crash.
#include "gmock/gmock.h"
#include "tests/runtime/tokenizer/tokenizer_files.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Expects an InvalidArgument that names the file and says all of `parts`.
void ExpectRefused(const json& root, const std::vector<std::string>& parts) {
  const auto tokenizer = LoadJson(root);
  ASSERT_FALSE(tokenizer.ok()) << root.dump();
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(tokenizer.status().message());
  EXPECT_THAT(message, HasSubstr("tokenizer.json"));
  for (const std::string& part : parts) EXPECT_THAT(message, HasSubstr(part));
}

json Good() { return CharTokenizer({"a", "b"}, {{"a", "b"}}); }

TEST(BrokenTokenizer, MergesOfUnknownTokens) {
  json root = Good();
  root["model"]["merges"].push_back("a z");
  ExpectRefused(root, {"model.merges[1]", "\"z\" is not in the vocabulary"});
  root = Good();
  root["model"]["merges"].push_back({"b", "a"});
  ExpectRefused(root, {"model.merges[1]", "\"ba\" is not in the vocabulary"});
  for (const json& merge : {json("ab"), json("a b c"), json(7), json::array({"a"}), json::array({"a", 1})}) {
    root = Good();
    root["model"]["merges"] = json::array({merge});
    ExpectRefused(root, {"model.merges[0]"});
  }
}

TEST(BrokenTokenizer, TruncatedAtEveryByte) {
  json root = Good();
  root["normalizer"] = {{"type", "NFC"}};
  root["pre_tokenizer"] = {{"type", "ByteLevel"}};
  const std::string whole = root.dump();
  TempFolder folder;
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto tokenizer = Tokenizer::Load(folder.Write("tokenizer.json", whole.substr(0, size)));
    ASSERT_FALSE(tokenizer.ok()) << size;
    EXPECT_THAT(std::string(tokenizer.status().message()),
                AllOf(HasSubstr("tokenizer.json"), HasSubstr("JSON")));
  }
  EXPECT_TRUE(Tokenizer::Load(folder.Write("tokenizer.json", whole)).ok());
  EXPECT_EQ(Tokenizer::Load(folder.Path("absent.json")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Tokenizer::Load(folder.Path("")).status().message()), HasSubstr("is a folder"));
}

TEST(BrokenTokenizer, WrongTypesEverywhere) {
  // Each component of a full file replaced by each kind of value: an error or a tokenizer, never a crash.
  json root = Good();
  root["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", "a"}}}}};
  root["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "a+"}}}, {"behavior", "Isolated"}, {"invert", false}};
  root["decoder"] = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  root["added_tokens"] = {{{"id", 9}, {"content", "<s>"}, {"special", true}}};
  root["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single", {{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}}},
                            {"special_tokens", {{"<s>", {{"ids", {9}}}}}}};
  ASSERT_TRUE(LoadJson(root).ok()) << LoadJson(root).status();
  const json flat = root.flatten();
  int refused = 0;
  for (const auto& [pointer, unused] : flat.items()) {
    for (auto at = json::json_pointer(pointer); !at.empty(); at = at.parent_pointer()) {
      for (const json& value :
           {json(nullptr), json(-1), json(1e30), json("?"), json::array(), json::object(), json(true)}) {
        json broken = root;
        broken[at] = value;
        const auto tokenizer = LoadJson(broken);
        if (!tokenizer.ok()) {
          ++refused;
          EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << tokenizer.status();
        }
      }
    }
  }
  EXPECT_GT(refused, 100);
  ExpectRefused(json::array(), {"expected an object"});
  root["model"]["vocab"]["a"] = "zero";
  ExpectRefused(root, {"model.vocab", "\"a\"", "integer"});
}

TEST(BrokenTokenizer, DuplicateAndOutrageousIds) {
  json root = Good();
  root["model"]["vocab"]["c"] = 1;
  ExpectRefused(root, {"the id 1 belongs to two tokens"});
  root = Good();
  root["model"]["vocab"]["c"] = 4'000'000'000;
  ExpectRefused(root, {"model.vocab", "4000000000"});
  root = Good();
  root["added_tokens"] = {{{"id", 1}, {"content", "<s>"}}};
  ExpectRefused(root, {"added_tokens[0]", "id of \"b\""});
  root["added_tokens"] = {{{"id", 7}, {"content", "a"}}};
  ExpectRefused(root, {"added_tokens[0]", "has the id 0"});
  root["added_tokens"] = {{{"id", 7}, {"content", "<s>"}}, {{"id", 7}, {"content", "<t>"}}};
  ExpectRefused(root, {"added_tokens[1]", "repeats the id"});
}

TEST(BrokenTokenizer, UnsupportedComponentsAreNamed) {
  for (const char* component : {"normalizer", "pre_tokenizer", "decoder", "post_processor"}) {
    json root = Good();
    root[component] = {{"type", "Fancy"}};
    ExpectRefused(root, {component, "\"Fancy\" is not supported"});
  }
  json root = Good();
  root["model"]["type"] = "Unigram";
  ExpectRefused(root, {"model", "Unigram"});
  root = Good();
  root["model"]["end_of_word_suffix"] = "</w>";
  ExpectRefused(root, {"end_of_word_suffix"});
  root = Good();
  root["model"]["unk_token"] = "<unk>";
  ExpectRefused(root, {"unk_token", "<unk>"});
  for (const char* pattern : {"(", "[a&&b]", "[a[b]]", "*"}) {
    root = Good();
    root["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}};
    ExpectRefused(root, {"pre_tokenizer.pattern", "regular expression"});
  }
  json nested = {{"type", "NFC"}};
  for (int i = 0; i < 100; ++i) nested = {{"type", "Sequence"}, {"normalizers", {nested}}};
  root = Good();
  root["normalizer"] = nested;
  ExpectRefused(root, {"nested too deeply"});
}

TEST(BrokenTokenizer, InvalidUtf8NamesTheByte) {
  const auto tokenizer = LoadJson(Good());
  ASSERT_TRUE(tokenizer.ok());
  for (const std::string bad : {"ab\xFF", "ab\xC3", "ab\xC0\x80", "ab\xED\xA0\x80", "ab\xF5\x80\x80\x80"}) {
    const auto ids = (*tokenizer)->Encode(bad, false);
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr("byte 2"));
  }
}

}  // namespace
}  // namespace cohort::runtime
