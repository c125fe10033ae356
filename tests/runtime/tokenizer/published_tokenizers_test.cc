// Tokenizers as published, against ids and texts that others have published for them.
#include <atomic>
#include <iterator>
#include <random>
#include <sstream>
#include <thread>

#include "gmock/gmock.h"
#include "runtime/tokenizer/unicode.h"
#include "tests/runtime/tokenizer/tokenizer_files.h"
#include "tests/support/test_data.h"

namespace cohort::runtime {
namespace {

using ::testing::ElementsAre;

std::string ReadFile(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::shared_ptr<const Tokenizer> LoadPublished(const std::string& name) {
  auto tokenizer = Tokenizer::Load(TestData() + "/" + name + "/tokenizer.json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

// Inputs stand between lines "__ggml_vocab_test__", ids on lines of their own.
void CheckCases(const std::string& name) {
  COHORT_SKIP_WITHOUT_TEST_DATA();
  const auto tokenizer = LoadPublished(name);
  ASSERT_NE(tokenizer, nullptr);
  const std::string folder = TestData() + "/" + name;
  const std::string inputs = ReadFile(folder + "/cases.inp");
  std::istringstream outputs(ReadFile(folder + "/cases.out"));
  const std::string separator = "\n__ggml_vocab_test__\n";
  int cases = 0;
  for (size_t begin = 0; begin < inputs.size();) {
    const size_t end = std::min(inputs.find(separator, begin), inputs.size());
    const std::string input = inputs.substr(begin, end - begin);
    begin = end + separator.size();
    std::string line;
    ASSERT_TRUE(std::getline(outputs, line)) << "more inputs than outputs";
    std::istringstream numbers(line);
    const std::vector<int32_t> expected{std::istream_iterator<int32_t>(numbers), {}};
    const auto ids = tokenizer->Encode(input, false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, expected) << "for the input: " << input;
    ++cases;
  }
  EXPECT_GE(cases, 40);
}

TEST(PublishedTokenizers, Gpt2Cases) { CheckCases("tokenizers/gpt2"); }
TEST(PublishedTokenizers, Qwen2Cases) { CheckCases("tokenizers/qwen2"); }

TEST(PublishedTokenizers, Gpt2SpecialTokens) {
  COHORT_SKIP_WITHOUT_TEST_DATA();
  const auto tokenizer = LoadPublished("tokenizers/gpt2");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 50257);
  EXPECT_EQ(tokenizer->bos_id(), 50256);
  EXPECT_THAT(tokenizer->eos_ids(), ElementsAre(50256));
  EXPECT_THAT(*tokenizer->Encode("Hello<|endoftext|> world", true), ElementsAre(15496, 50256, 995));
  EXPECT_EQ(tokenizer->Decode({15496, 50256, 995}, false), "Hello<|endoftext|> world");
  EXPECT_EQ(tokenizer->Decode({15496, 50256, 995}, true), "Hello world");
}

TEST(PublishedTokenizers, Stories260k) {
  COHORT_SKIP_WITHOUT_TEST_DATA();
  const auto tokenizer = LoadPublished("stories260k");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_THAT(tokenizer->eos_ids(), ElementsAre(2));
  EXPECT_THAT(*tokenizer->Encode("", true), ElementsAre(1));
  // The model's own continuation: its ids decode to the text that its authors publish, and encode back.
  const auto expected = nlohmann::json::parse(ReadFile(TestData() + "/stories260k/expected.json"));
  std::vector<int32_t> ids = expected["greedy_ids"];
  ids.insert(ids.begin(), 1);
  const std::string text = expected["text"];
  EXPECT_EQ(tokenizer->Decode(ids, true), text);
  EXPECT_EQ(*tokenizer->Encode(text, true), ids);
  // Characters outside of the vocabulary become their bytes.
  const auto emoji = tokenizer->Encode("\U0001F999", false);
  ASSERT_EQ(emoji->size(), 5u);  // the leading space and four bytes
  EXPECT_EQ(tokenizer->TokenOf((*emoji)[1]), "<0xF0>");
  EXPECT_EQ(tokenizer->Decode(*emoji, true), "\U0001F999");
}

TEST(PublishedTokenizers, StreamsGiveTheWholeText) {
  COHORT_SKIP_WITHOUT_TEST_DATA();
  std::mt19937 random(7);
  for (const char* name : {"tokenizers/gpt2", "tokenizers/qwen2", "stories260k"}) {
    const auto tokenizer = LoadPublished(name);
    ASSERT_NE(tokenizer, nullptr);
    for (int round = 0; round < 200; ++round) {
      std::vector<int32_t> ids(random() % 20);
      // Low ids are bytes in all three, so that broken characters are frequent.
      for (int32_t& id : ids)
        id = static_cast<int32_t>(random() % (random() % 2 ? 300 : tokenizer->vocab_size()));
      const bool skip = round % 2 == 0;
      StreamDecoder stream(tokenizer, skip);
      std::string text;
      for (const int32_t id : ids) {
        const std::string delta = stream.Push(id);
        EXPECT_EQ(FindInvalidUtf8(delta), std::string::npos);
        text += delta;
      }
      text += stream.Finish();
      EXPECT_EQ(text, tokenizer->Decode(ids, skip));
    }
  }
}

TEST(PublishedTokenizers, ThreadsShareOne) {
  COHORT_SKIP_WITHOUT_TEST_DATA();
  const auto tokenizer = LoadPublished("tokenizers/qwen2");
  ASSERT_NE(tokenizer, nullptr);
  std::string text;
  for (int i = 0; i < 200; ++i) text += "Wörter " + std::to_string(i * 7919) + " and\u00a0more\n";
  const auto expected = *tokenizer->Encode(text, false);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) wrong += *tokenizer->Encode(text, false) != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(tokenizer->Decode(expected, false), text);
}

}  // namespace
}  // namespace cohort::runtime
