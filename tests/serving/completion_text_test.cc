#include "serving/completion_text.h"

#include <gtest/gtest.h>

#include "tests/serving/test_tokenizer.h"
#include "tests/support/temp_folder.h"

namespace cohort::serving {
namespace {

struct CompletionTextTest : ::testing::Test {
  // All deltas of these tokens, merged, up to the end.
  Delta Feed(const std::vector<int32_t>& tokens, int32_t longest = 1000) {
    CompletionText text(ByteTokenizer(), request, 3, longest);
    Delta whole;
    for (int32_t token : tokens) {
      const Delta delta = text.Accept(token, std::nullopt);
      EXPECT_EQ(delta.index, 3);
      whole.text += delta.text;
      whole.token_ids.insert(whole.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
      whole.finish_reason = delta.finish_reason;
      whole.matched_stop = delta.matched_stop;
      if (delta.finish_reason != FinishReason::kNone) break;
    }
    return whole;
  }
  static std::vector<int32_t> Tokens(const std::string& text, bool eos = true) {
    std::vector<int32_t> ids;
    for (char c : text) ids.push_back(static_cast<uint8_t>(c));
    if (eos) ids.push_back(kEos);
    return ids;
  }
  CompletionTextTest() {
    request.prompt = {1};
    request.stopping.max_tokens = 1000;
  }
  GenerationRequest request;
};

// A SentencePiece-style tokenizer, as Llama 2's: its decoder drops the space at the beginning of a text.
std::shared_ptr<const runtime::Tokenizer> SpaceTokenizer() {
  const TempFolder folder;
  folder.Write("tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": "</s>"})");
  auto tokenizer = runtime::Tokenizer::Load(folder.Write("tokenizer.json", R"({"version": "1.0",
      "added_tokens": [
        {"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
         "special": true},
        {"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
         "special": true}],
      "normalizer": null, "pre_tokenizer": null, "post_processor": null,
      "decoder": {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
      "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
        "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "\u2581Once": 3, "\u2581upon": 4, "\u2581a": 5}, "merges": []}})"));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *tokenizer;
}

std::string Continue(GenerationRequest request, std::vector<int32_t> prompt) {
  request.prompt = std::move(prompt);
  CompletionText text(SpaceTokenizer(), request, 0, 1000);
  const std::string first = text.Accept(4, std::nullopt).text;
  return first + text.Accept(5, std::nullopt).text;
}

TEST_F(CompletionTextTest, TheOutputGoesOnFromThePrompt) {
  EXPECT_EQ(Continue(request, {1, 3}), " upon a");
  EXPECT_EQ(Continue(request, {3, 1}), " upon a");
  EXPECT_EQ(Continue(request, {1}), "upon a") << "behind BOS alone it is the beginning of the text";
}

TEST_F(CompletionTextTest, EndOfSequence) {
  const Delta whole = Feed(Tokens("hello"));
  EXPECT_EQ(whole.text, "hello");
  EXPECT_EQ(whole.finish_reason, FinishReason::kStop);
  EXPECT_EQ(whole.matched_stop, "");
  EXPECT_EQ(whole.token_ids.back(), kEos);
}

TEST_F(CompletionTextTest, IgnoreEos) {
  request.stopping.ignore_eos = true;
  request.stopping.max_tokens = 8;
  const Delta whole = Feed({'a', kEos, 'b', 'c', 'd', 'e', 'f', 'g', 'h'});
  EXPECT_EQ(whole.text, "abcdefg");
  EXPECT_EQ(whole.finish_reason, FinishReason::kLength);
}

TEST_F(CompletionTextTest, StopStringEndsInsideATokenRun) {
  request.stopping.stop = {"\n\n"};
  const Delta whole = Feed(Tokens("one\ntwo\n\nthree"));
  EXPECT_EQ(whole.text, "one\ntwo");
  EXPECT_EQ(whole.matched_stop, "\n\n");
  EXPECT_EQ(whole.token_ids.size(), 9u);
}

TEST_F(CompletionTextTest, StopIdIsNamedAndLeftOut) {
  request.stopping.stop_token_ids = {'!'};
  Delta whole = Feed(Tokens("hi! there"));
  EXPECT_EQ(whole.text, "hi");
  EXPECT_EQ(whole.matched_stop, "!");
  request.stopping.include_stop = true;
  EXPECT_EQ(Feed(Tokens("hi! there")).text, "hi!");
}

TEST_F(CompletionTextTest, HeldBackTextComesAtTheEnd) {
  request.stopping.stop = {"abcdef"};
  request.stopping.max_tokens = 5;
  const Delta whole = Feed(Tokens("xxabc"));
  EXPECT_EQ(whole.text, "xxabc");
  EXPECT_EQ(whole.finish_reason, FinishReason::kLength);
  request.stopping.max_tokens = 100;
  EXPECT_EQ(Feed(Tokens("xxabc")).text, "xxabc");  // the end of sequence comes
}

TEST_F(CompletionTextTest, MinTokens) {
  request.stopping.min_tokens = 4;
  request.stopping.stop = {"b"};
  request.stopping.stop_token_ids = {'z'};
  CompletionText text(ByteTokenizer(), request, 0, 100);
  EXPECT_EQ(std::vector<int32_t>(text.Banned().begin(), text.Banned().end()),
            (std::vector<int32_t>{'z', kEos}));
  EXPECT_EQ(text.Accept('a', {}).finish_reason, FinishReason::kNone);
  EXPECT_EQ(text.Accept('b', {}).text, "b");  // too early to end there
  text.Accept('c', {});
  EXPECT_FALSE(text.Banned().empty());
  EXPECT_EQ(text.Accept('b', {}).finish_reason, FinishReason::kStop);
}

TEST_F(CompletionTextTest, TextStaysWholeUtf8) {
  // Euro sign: three bytes, three tokens.
  CompletionText text(ByteTokenizer(), request, 0, 100);
  EXPECT_EQ(text.Accept(0xE2, {}).text, "");
  EXPECT_EQ(text.Accept(0x82, {}).text, "");
  EXPECT_EQ(text.Accept(0xAC, {}).text, "\xE2\x82\xAC");
  EXPECT_EQ(text.Accept(0xE2, {}).text, "");
  EXPECT_EQ(text.Accept(kEos, {}).text, "\xEF\xBF\xBD");  // never completed
}

TEST_F(CompletionTextTest, EchoComesFirstAndIsNoStop) {
  request.echo = "prompt with stop ";
  request.stopping.stop = {"stop"};
  const Delta whole = Feed(Tokens("and go"));
  EXPECT_EQ(whole.text, "prompt with stop and go");
}

TEST_F(CompletionTextTest, AbortShowsWhatIsHeldBack) {
  request.stopping.stop = {"abc"};
  CompletionText text(ByteTokenizer(), request, 0, 100);
  EXPECT_EQ(text.Accept('a', {}).text, "");
  const Delta delta = text.Abort();
  EXPECT_EQ(delta.text, "a");
  EXPECT_EQ(delta.finish_reason, FinishReason::kAborted);
}

}  // namespace
}  // namespace cohort::serving
