#include "runtime/tokenizer/trainer.h"

#include <algorithm>
#include <map>

#include "gmock/gmock.h"
#include "tests/runtime/tokenizer/tokenizer_files.h"

namespace cohort::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TrainedBpe TrainOn(const std::vector<std::string>& texts, int64_t vocab_size) {
  auto trainer = BpeTrainer::Create({.vocab_size = vocab_size});
  EXPECT_TRUE(trainer.ok()) << trainer.status();
  for (const std::string& text : texts) EXPECT_TRUE((*trainer)->Feed(text).ok());
  auto trained = (*trainer)->Train();
  EXPECT_TRUE(trained.ok()) << trained.status();
  return *trained;
}

// A merge at a time, recounting everything: what the incremental trainer must agree with.
std::vector<std::pair<std::string, std::string>> TrainSlowly(
    const std::vector<std::pair<std::string, int>>& words, const TrainedBpe& alphabet_of, int merges) {
  std::map<std::string, int32_t> id;
  std::vector<std::string> token(alphabet_of.tokens.begin(), alphabet_of.tokens.begin() + 257);
  for (size_t i = 0; i < token.size(); ++i) id[token[i]] = static_cast<int32_t>(i);
  std::vector<std::pair<std::vector<int32_t>, int>> state;
  for (const auto& [word, count] : words) {
    std::vector<int32_t> symbols;
    for (const char c : word) symbols.push_back(id.at(c == ' ' ? "\u0120" : std::string(1, c)));
    state.emplace_back(symbols, count);
  }
  std::vector<std::pair<std::string, std::string>> result;
  for (int m = 0; m < merges; ++m) {
    std::map<std::pair<int32_t, int32_t>, int> counts;
    for (const auto& [symbols, count] : state) {
      for (size_t i = 0; i + 1 < symbols.size(); ++i) counts[{symbols[i], symbols[i + 1]}] += count;
    }
    const auto best = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end() || best->second < 2) break;
    const auto [left, right] = best->first;
    result.emplace_back(token[left], token[right]);
    const std::string merged = token[left] + token[right];
    if (id.emplace(merged, static_cast<int32_t>(token.size())).second) token.push_back(merged);
    for (auto& [symbols, count] : state) {
      std::vector<int32_t> next;
      for (size_t i = 0; i < symbols.size(); ++i) {
        const bool match = i + 1 < symbols.size() && symbols[i] == left && symbols[i + 1] == right;
        next.push_back(match ? id[merged] : symbols[i]);
        i += match;
      }
      symbols = next;
    }
  }
  return result;
}

TEST(BpeTrainer, AgreesWithRecounting) {
  const std::vector<std::pair<std::string, int>> words = {
      {" low", 5},    {" lower", 2},  {" newest", 6}, {" widest", 3}, {" aaaaaa", 4},
      {" banana", 7}, {" nanana", 2}, {" abab", 3},   {" lowest", 1}, {" babaab", 5}};
  std::string text;
  for (const auto& [word, count] : words) {
    for (int i = 0; i < count; ++i) text += word;
  }
  const TrainedBpe trained = TrainOn({text}, 300);
  std::vector<std::pair<std::string, std::string>> merges;
  for (const auto& [left, right] : trained.merges)
    merges.emplace_back(trained.tokens[left], trained.tokens[right]);
  EXPECT_EQ(merges, TrainSlowly(words, trained, static_cast<int>(merges.size())));
  EXPECT_GT(merges.size(), 15u);
}

TEST(BpeTrainer, OrderOfTextsDoesNotMatter) {
  const TrainedBpe one = TrainOn({"the cat sat on the mat. ", "the dog, the log: 12345"}, 280);
  const TrainedBpe other = TrainOn({"the dog, the log: 12345", "the cat sat on the mat. "}, 280);
  EXPECT_EQ(one.tokens, other.tokens);
  EXPECT_EQ(one.merges, other.merges);
}

TEST(BpeTrainer, WritesWhatTheTokenizerLoads) {
  std::string text;
  for (int i = 0; i < 30; ++i)
    text += "It's a trueism: thirty-three thieves thought they thrilled the throne.\n";
  const TrainedBpe trained = TrainOn({text}, 290);
  EXPECT_EQ(trained.tokens.size(), 290u);
  TempFolder folder;
  ASSERT_TRUE(trained.Write(folder.Path("tok")).ok());
  const auto tokenizer = Tokenizer::Load(folder.Path("tok/tokenizer.json"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 290);
  EXPECT_EQ((*tokenizer)->bos_id(), 0);
  EXPECT_THAT((*tokenizer)->eos_ids(), ElementsAre(0));
  const std::string any = "thirty\u00a0th\u00efeves, \U0001F999 \x01 <|endoftext|>\r\n";
  const auto ids = (*tokenizer)->Encode(any, false);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ((*tokenizer)->Decode(*ids, false), any);
  EXPECT_LT((*tokenizer)->Encode(text, false)->size(), text.size() / 3);
  EXPECT_THAT(*(*tokenizer)->Encode("<|endoftext|>", true), ElementsAre(0));
  // Written again over the old files.
  EXPECT_TRUE(trained.Write(folder.Path("tok")).ok());
  EXPECT_FALSE(trained.Write(folder.Write("file", "x") + "/under").ok());
}

TEST(BpeTrainer, RefusesWhatCannotBe) {
  EXPECT_THAT(std::string(BpeTrainer::Create({.vocab_size = 256}).status().message()), HasSubstr("257"));
  EXPECT_FALSE(BpeTrainer::Create({.vocab_size = 300, .special_tokens = {"<s>", "<s>"}}).ok());
  EXPECT_FALSE(BpeTrainer::Create({.vocab_size = 300, .special_tokens = {""}}).ok());
  const auto trainer = BpeTrainer::Create({.vocab_size = 300});
  ASSERT_TRUE(trainer.ok());
  EXPECT_THAT(std::string((*trainer)->Feed("ok \xFF").message()), HasSubstr("byte 3"));
  EXPECT_EQ((*trainer)->Train().status().code(), absl::StatusCode::kFailedPrecondition);
  // Too little text for the size: a smaller vocabulary, not a failure.
  ASSERT_TRUE((*trainer)->Feed("abc").ok());
  EXPECT_EQ((*trainer)->Train()->tokens.size(), 257u);
}

TEST(BpeTrainer, NoMergeCrossesASpecialToken) {
  const TrainedBpe trained = TrainOn({"ab<|endoftext|>ab<|endoftext|>ab<|endoftext|>"}, 300);
  ASSERT_EQ(trained.merges.size(), 1u);
  EXPECT_EQ(trained.tokens.back(), "ab");
}

}  // namespace
}  // namespace cohort::runtime
