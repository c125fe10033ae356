// A corpus of a test's own and a byte-level tokenizer for it.
#pragma once

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/data/dataset.h"
#include "runtime/data/prepare.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/trainer.h"
#include "tests/runtime/tokenizer/tokenizer_files.h"

namespace cohort::runtime {

class PreparedCorpusTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto trainer = BpeTrainer::Create({.vocab_size = 257});  // bytes and <|endoftext|>
    ASSERT_TRUE(trainer.ok()) << trainer.status();
    ASSERT_TRUE((*trainer)->Feed("text").ok());
    ASSERT_TRUE((*trainer)->Train()->Write(folder_.Path("tokenizer")).ok());
  }

  // Options that prepare `inputs` (names in the scratch folder) into the folder "data".
  PrepareOptions Options(const std::vector<std::string>& inputs) {
    PrepareOptions options;
    for (const std::string& input : inputs) options.corpus.inputs.push_back(folder_.Path(input));
    options.tokenizer_json = folder_.Path("tokenizer/tokenizer.json");
    options.output_folder = folder_.Path("data");
    return options;
  }

  std::shared_ptr<const TokenDataset> Open(const std::string& split = "train",
                                           const std::string& name = "data") {
    auto dataset = TokenDataset::Open({folder_.Path(name)}, split);
    EXPECT_TRUE(dataset.ok()) << dataset.status();
    return dataset.ok() ? *dataset : nullptr;
  }

  // The documents of a split, as text.
  std::vector<std::string> Documents(const TokenDataset& dataset) {
    const auto tokenizer = *Tokenizer::Load(dataset.tokenizer_json());
    std::vector<int32_t> tokens(static_cast<size_t>(dataset.num_tokens()));
    EXPECT_TRUE(dataset.Read(0, absl::MakeSpan(tokens)).ok());
    std::vector<std::string> documents;
    for (int64_t d = 0; d < dataset.num_documents(); ++d) {
      const int64_t begin = dataset.DocumentBegin(d);
      const int64_t end =
          d + 1 < dataset.num_documents() ? dataset.DocumentBegin(d + 1) : dataset.num_tokens();
      EXPECT_EQ(tokens[static_cast<size_t>(end - 1)], dataset.eos_id());
      documents.push_back(tokenizer->Decode(
          absl::MakeSpan(tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin - 1)),
          false));
    }
    return documents;
  }

  TempFolder folder_;
};

}  // namespace cohort::runtime
