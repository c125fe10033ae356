// Every kind of component in a small tokenizer.json, with the results of Hugging Face's tokenizers.
#include "gmock/gmock.h"
#include "tests/runtime/tokenizer/tokenizer_files.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// One character a token, so that tokens show how a text was rewritten; the words cannot be seen.
std::vector<std::string> Letters() {
  std::vector<std::string> letters = {"\u2581", "\u00e9", "e\u0301", "\u0301", "fi",
                                      "\u0120", "\u00c3", "\u00a9",  "\u010a"};
  for (char c = ' '; c <= '~'; ++c) letters.emplace_back(1, c);
  letters.push_back("\n");
  return letters;
}

std::string Joined(const Tokenizer& tokenizer, const std::string& text) {
  std::string joined;
  for (const std::string& token : Tokens(tokenizer, text)) joined += token;
  return joined;
}

// Marks the cuts between words: every pair of adjacent characters merges to a pair token,
// words of two characters are whole. Instead of that, unknown words are shown by ignore_merges
// with a vocabulary of all substrings.
std::vector<std::string> Words(const json& pre_tokenizer, const std::string& text) {
  json root = CharTokenizer({});
  int id = 0;
  // Every substring of the text and of what ByteLevel and Metaspace make of it.
  std::string byte_level, metaspace = "\u2581";
  for (const char c : text) {
    byte_level += c == ' ' ? "\u0120" : std::string(1, c);
    metaspace += c == ' ' ? "\u2581" : std::string(1, c);
  }
  for (const std::string& whole : {text, byte_level, "\u0120" + byte_level, metaspace}) {
    for (size_t begin = 0; begin < whole.size(); ++begin) {
      for (size_t end = begin + 1; end <= whole.size(); ++end) {
        const auto starts_char = [&](size_t at) { return at == whole.size() || (whole[at] & 0xC0) != 0x80; };
        if (!starts_char(begin) || !starts_char(end)) continue;
        const std::string part = whole.substr(begin, end - begin);
        if (!root["model"]["vocab"].contains(part)) root["model"]["vocab"][part] = id++;
      }
    }
  }
  root["model"]["ignore_merges"] = true;
  root["pre_tokenizer"] = pre_tokenizer;
  const auto tokenizer = LoadJson(root);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? Tokens(**tokenizer, text) : std::vector<std::string>();
}

json Split(const json& pattern, const std::string& behavior, bool invert = false) {
  return {{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", invert}};
}

TEST(TokenizerComponents, Normalizers) {
  const auto normalized = [](const json& normalizer, const std::string& text) {
    json root = CharTokenizer(Letters());
    root["normalizer"] = normalizer;
    const auto tokenizer = LoadJson(root);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? Joined(**tokenizer, text) : "";
  };
  EXPECT_EQ(normalized({{"type", "NFC"}}, "e\u0301"), "\u00e9");
  EXPECT_EQ(normalized({{"type", "NFD"}}, "\u00e9"), "e\u0301");
  EXPECT_EQ(normalized({{"type", "NFKC"}}, "\ufb01"), "fi");
  EXPECT_EQ(normalized({{"type", "NFKD"}}, "\ufb01\u00e9"), "fie\u0301");
  EXPECT_EQ(normalized({{"type", "Lowercase"}}, "AbC"), "abc");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}, " \n a b  "), "a b");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}}, " a  "), " a");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "\u2581"}}, "a"),
            "\u2581"
            "a");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "\u2581"}}, ""), "");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}, "a b "),
            "a\u2581"
            "b\u2581");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"Regex", "\\s+"}}}, {"content", "_"}}, "a \n b"),
            "a_b");
  const json sequence = {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}, {{"type", "NFC"}}}}};
  EXPECT_EQ(normalized(sequence, "E\u0301"), "\u00e9");
}

TEST(TokenizerComponents, SplitBehaviors) {
  const json dash = {{"String", "-"}};
  const std::string text = "the-final--countdown";
  EXPECT_THAT(Words(Split(dash, "Removed"), text), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(Words(Split(dash, "Isolated"), text), ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(Words(Split(dash, "MergedWithPrevious"), text),
              ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(Words(Split(dash, "MergedWithNext"), text), ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(Words(Split(dash, "Contiguous"), text), ElementsAre("the", "-", "final", "--", "countdown"));
  EXPECT_THAT(Words(Split(dash, "Removed", true), text), ElementsAre("-", "-", "-"));
  EXPECT_THAT(Words(Split({{"Regex", "\\p{L}{1,3}+(?=[a-z])|\\d"}}, "Isolated"), "abcd12"),
              ElementsAre("abc", "d", "1", "2"));
}

TEST(TokenizerComponents, PreTokenizers) {
  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  EXPECT_THAT(Words(digits, "a12b"), ElementsAre("a", "1", "2", "b"));
  EXPECT_THAT(Words({{"type", "Digits"}, {"individual_digits", false}}, "a12b"), ElementsAre("a", "12", "b"));
  EXPECT_THAT(Words({{"type", "Punctuation"}, {"behavior", "Isolated"}}, "hey, $5!"),
              ElementsAre("hey", ",", " ", "$", "5", "!"));
  EXPECT_THAT(Words({{"type", "Whitespace"}}, " don't  stop_it. "),
              ElementsAre("don", "'", "t", "stop_it", "."));
  EXPECT_THAT(Words({{"type", "WhitespaceSplit"}}, " don't  stop. "), ElementsAre("don't", "stop."));
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  EXPECT_THAT(Words(byte_level, "I've  42 x"), ElementsAre("I", "'ve", "\u0120",
                                                           "\u0120"
                                                           "42",
                                                           "\u0120x"));
  const json prefixed = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}};
  EXPECT_THAT(Words(prefixed, "hi x"), ElementsAre("\u0120hi", "\u0120x"));
  const auto metaspace = [](const char* scheme, bool split) {
    return json{
        {"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", scheme}, {"split", split}};
  };
  EXPECT_THAT(Words(metaspace("always", true), "hi  x"), ElementsAre("\u2581hi", "\u2581", "\u2581x"));
  EXPECT_THAT(Words(metaspace("never", true), "hi x"), ElementsAre("hi", "\u2581x"));
  EXPECT_THAT(Words(metaspace("first", false), "hi x"), ElementsAre("\u2581hi\u2581x"));
  const json sequence = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "WhitespaceSplit"}}, digits}}};
  EXPECT_THAT(Words(sequence, "a1 2"), ElementsAre("a", "1", "2"));
}

TEST(TokenizerComponents, MetaspaceFirstLooksAtTheWholeInput) {
  json root = CharTokenizer(Letters());
  root["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}};
  root["added_tokens"] = {{{"id", 500}, {"content", "<s>"}, {"special", true}}};
  const auto tokenizer = LoadJson(root);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(Joined(**tokenizer, "a<s>b"),
            "\u2581"
            "a<s>b");
  EXPECT_EQ(Joined(**tokenizer, "<s>b"), "<s>b");
}

TEST(TokenizerComponents, MergesByRankInBothSpellings) {
  json root = CharTokenizer({"a", "b", "c", "d"}, {{"b", "c"}, {"a", "b"}, {"bc", "d"}, {"a", "bcd"}});
  for (const bool as_pairs : {false, true}) {
    if (as_pairs) {
      for (json& merge : root["model"]["merges"]) {
        const std::string both = merge;
        merge = json::array({both.substr(0, both.find(' ')), both.substr(both.find(' ') + 1)});
      }
    }
    const auto tokenizer = LoadJson(root);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_THAT(Tokens(**tokenizer, "abcd"), ElementsAre("abcd"));
    EXPECT_THAT(Tokens(**tokenizer, "abab"), ElementsAre("ab", "ab"));
    EXPECT_THAT(Tokens(**tokenizer, "abc"), ElementsAre("a", "bc"));  // "bc" has the lower rank
  }
}

TEST(TokenizerComponents, LongWordsMergeLikeShortOnes) {
  json root = CharTokenizer({"a"}, {{"a", "a"}, {"aa", "aa"}});
  root["pre_tokenizer"] = Split({{"String", " "}}, "Removed");
  const auto tokenizer = LoadJson(root);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const size_t length : {1, 2, 3, 4, 7, 23, 24, 25, 26, 27, 100, 4099}) {
    const auto tokens = Tokens(**tokenizer, std::string(length, 'a'));
    std::vector<std::string> expected(length / 4, "aaaa");
    if (length % 4 >= 2) expected.push_back("aa");
    if (length % 2 == 1) expected.push_back("a");
    EXPECT_EQ(tokens, expected) << length;
  }
}

TEST(TokenizerComponents, UnknownCharacters) {
  json root = CharTokenizer({"<unk>", "a", "<0xC3>", "<0xA9>"});
  const auto load = [&] {
    auto tokenizer = LoadJson(root);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *tokenizer;
  };
  EXPECT_THAT(Tokens(*load(), "xay"), ElementsAre("a"));  // nothing to become: left out
  root["model"]["unk_token"] = "<unk>";
  EXPECT_THAT(Tokens(*load(), "xxa\u00e9"), ElementsAre("<unk>", "<unk>", "a", "<unk>"));
  root["model"]["fuse_unk"] = true;
  EXPECT_THAT(Tokens(*load(), "xxa\u00e9"), ElementsAre("<unk>", "a", "<unk>"));
  root["model"]["byte_fallback"] = true;
  EXPECT_THAT(Tokens(*load(), "xxa\u00e9"), ElementsAre("<unk>", "a", "<0xC3>", "<0xA9>"));
}

TEST(TokenizerComponents, AddedTokens) {
  json root = CharTokenizer(Letters());
  const auto token = [](int id, const std::string& content, json flags) {
    flags.update({{"id", id}, {"content", content}});
    if (!flags.contains("normalized")) flags["normalized"] = false;
    return flags;
  };
  root["normalizer"] = {{"type", "Lowercase"}};
  root["added_tokens"] = {
      token(500, "<left>", {{"lstrip", true}}),    token(501, "<right>", {{"rstrip", true}}),
      token(502, "word", {{"single_word", true}}), token(503, "NORM", {{"normalized", true}}),
      token(504, "<x>", json::object()),           token(505, "<x><y>", json::object())};
  const auto tokenizer = LoadJson(root);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(Tokens(**tokenizer, "a \n<left> b"), ElementsAre("a", "<left>", " ", "b"));
  EXPECT_THAT(Tokens(**tokenizer, "a <right>  b"), ElementsAre("a", " ", "<right>", "b"));
  EXPECT_THAT(Tokens(**tokenizer, "word,words"), ElementsAre("word", ",", "w", "o", "r", "d", "s"));
  EXPECT_THAT(Tokens(**tokenizer, "aNorm"), ElementsAre("a", "NORM"));
  EXPECT_THAT(Tokens(**tokenizer, "<x><y><x>"), ElementsAre("<x><y>", "<x>"));  // the longest match
  EXPECT_EQ((*tokenizer)->IdOf("<x>"), 504);
  EXPECT_EQ((*tokenizer)->IdOf("<z>"), std::nullopt);
  EXPECT_EQ((*tokenizer)->vocab_size(), 506);
  EXPECT_EQ((*tokenizer)->TokenOf(400), "");
}

TEST(TokenizerComponents, PostProcessorTemplate) {
  json root = CharTokenizer({"<s>", "</s>", "a"});
  const json with_ids = {{"<s>", {{"id", "<s>"}, {"ids", {0}}}}, {"</s>", {{"id", "</s>"}, {"ids", {1}}}}};
  const json single = {{{"SpecialToken", {{"id", "<s>"}}}},
                       {{"Sequence", {{"id", "A"}}}},
                       {{"SpecialToken", {{"id", "</s>"}}}}};
  const json post = {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", with_ids}};
  root["post_processor"] = {{"type", "Sequence"}, {"processors", {{{"type", "ByteLevel"}}, post}}};
  const auto tokenizer = LoadJson(root);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(*(*tokenizer)->Encode("aa", true), ElementsAre(0, 2, 2, 1));
  EXPECT_THAT(*(*tokenizer)->Encode("aa", false), ElementsAre(2, 2));
  EXPECT_EQ((*tokenizer)->bos_id(), 0);  // nothing else names it
  EXPECT_THAT((*tokenizer)->eos_ids(), IsEmpty());
}

TEST(TokenizerComponents, Decoders) {
  json root =
      CharTokenizer({"\u2581hi", "\u2581you", "<0xC3>", "<0xA9>", "x", "\u0120w", "\u00c3", "\u00a9"});
  const auto decoded = [&](const json& decoder, const std::vector<int32_t>& ids) {
    root["decoder"] = decoder;
    const auto tokenizer = LoadJson(root);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? (*tokenizer)->Decode(ids, false) : "";
  };
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}};
  const json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  const json llama = {{"type", "Sequence"},
                      {"decoders", {replace, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}, strip}}};
  EXPECT_EQ(decoded(llama, {0, 1, 2, 3, 4}), "hi you\u00e9x");
  EXPECT_EQ(decoded(llama, {0, 2, 4, 99}), "hi\uFFFDx");
  EXPECT_EQ(decoded({{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "always"}}, {0, 1}),
            "hi you");
  EXPECT_EQ(decoded({{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "never"}}, {0, 1}),
            " hi you");
  EXPECT_EQ(decoded({{"type", "ByteLevel"}}, {4, 5, 6, 7, 6}), "x w\u00e9\uFFFD");
  EXPECT_EQ(decoded(nullptr, {4, 4}), "x x");
}

TEST(TokenizerComponents, StreamsHoldBackHalfCharacters) {
  json root = CharTokenizer({"\u2581a", "<0xC3>", "<0xA9>", "b"});
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}};
  const json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  root["decoder"] = {{"type", "Sequence"},
                     {"decoders", {replace, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}, strip}}};
  const auto tokenizer = LoadJson(root);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  StreamDecoder stream(*tokenizer, false);
  EXPECT_EQ(stream.Push(0), "a");  // the leading space of a text is SentencePiece's own
  EXPECT_EQ(stream.Push(0), " a");
  EXPECT_EQ(stream.Push(1), "");
  EXPECT_EQ(stream.Push(2), "");
  EXPECT_EQ(stream.Push(3),
            "\u00e9"
            "b");
  EXPECT_EQ(stream.Push(1), "");
  EXPECT_EQ(stream.Finish(), "\uFFFD");
}

TEST(TokenizerComponents, FilesBesideNameBeginAndEnd) {
  TempFolder folder;
  const std::string path =
      folder.Write("tokenizer.json", CharTokenizer({"<s>", "</s>", "<eot>", "a"}).dump());
  folder.Write("tokenizer_config.json", R"({"bos_token": {"content": "<s>"}, "eos_token": "<eot>"})");
  folder.Write("generation_config.json", R"({"bos_token_id": 3, "eos_token_id": [2, 1]})");
  folder.Write("config.json", R"({"eos_token_id": 1, "bos_token_id": null})");
  const auto tokenizer = Tokenizer::Load(path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), 0);
  EXPECT_THAT((*tokenizer)->eos_ids(), ElementsAre(2, 1));
  folder.Write("tokenizer_config.json", R"({"eos_token": "<nope>"})");
  EXPECT_THAT(Tokenizer::Load(path).status().message(), ::testing::HasSubstr("tokenizer_config.json"));
}

}  // namespace
}  // namespace cohort::runtime
