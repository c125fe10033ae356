#include "runtime/data/loader.h"

#include <algorithm>
#include <set>

#include "gmock/gmock.h"
#include "tests/runtime/data/prepared_corpus.h"

namespace cohort::runtime {
namespace {

using ::testing::HasSubstr;

class LoaderTest : public PreparedCorpusTest {
 protected:
  void SetUp() override {
    PreparedCorpusTest::SetUp();
    std::string text;
    for (int i = 0; i < 60; ++i) text += "word" + std::to_string(i * i) + " ";
    folder_.Write("a.txt", text);
    PrepareOptions options = Options({"a.txt"});
    options.tokens_per_shard = 100;
    ASSERT_TRUE(PrepareData(options).ok());
    dataset_ = Open();
    ASSERT_NE(dataset_, nullptr);
    tokens_.resize(static_cast<size_t>(dataset_->num_tokens()));
    ASSERT_TRUE(dataset_->Read(0, absl::MakeSpan(tokens_)).ok());
  }

  TrainLoader Loader(TrainLoaderOptions options) {
    auto loader = TrainLoader::Create(dataset_, options);
    EXPECT_TRUE(loader.ok()) << loader.status();
    return *std::move(loader);
  }

  std::shared_ptr<const TokenDataset> dataset_;
  std::vector<int32_t> tokens_;
};

TEST_F(LoaderTest, EachSampleOnceAnEpoch) {
  for (const int64_t batch : {1, 3, 7, 50}) {  // 50 is more than an epoch has
    const TrainLoader loader = Loader({.sequence_length = 16, .global_batch = batch, .seed = 9});
    const int64_t samples = loader.samples_per_epoch();
    EXPECT_EQ(samples, (dataset_->num_tokens() - 1) / 16);
    std::vector<std::vector<int64_t>> orders;
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<int64_t> order;
      for (int64_t i = 0; i < samples; ++i) order.push_back(loader.WindowOf(epoch * samples + i));
      const std::set<int64_t> distinct(order.begin(), order.end());
      EXPECT_EQ(static_cast<int64_t>(distinct.size()), samples);
      EXPECT_EQ(*distinct.begin(), 0);
      EXPECT_EQ(*distinct.rbegin(), samples - 1);
      orders.push_back(order);
    }
    EXPECT_NE(orders[0], orders[1]);
    EXPECT_NE(orders[1], orders[2]);
    EXPECT_FALSE(std::is_sorted(orders[0].begin(), orders[0].end()));
  }
}

TEST_F(LoaderTest, BatchesAcrossEpochsHoldTheWindows) {
  const int64_t length = 16, batch = 5;
  const TrainLoader loader = Loader({.sequence_length = length, .global_batch = batch, .seed = 3});
  std::vector<int> targets_seen(tokens_.size());
  const int64_t steps = 2 * loader.samples_per_epoch() / batch + 1;
  for (int64_t step = 0; step < steps; ++step) {
    const auto got = loader.GetBatch(step, 0, batch);
    ASSERT_TRUE(got.ok()) << got.status();
    ASSERT_EQ(got->tokens.size(), static_cast<size_t>(batch * length));
    for (int64_t i = 0; i < batch; ++i) {
      const int64_t begin = loader.WindowOf(step * batch + i) * length;
      for (int64_t t = 0; t < length; ++t) {
        EXPECT_EQ(got->tokens[i * length + t], tokens_[begin + t]);
        EXPECT_EQ(got->targets[i * length + t], tokens_[begin + t + 1]);
        if (step * batch + i < loader.samples_per_epoch()) ++targets_seen[begin + t + 1];
      }
    }
  }
  EXPECT_EQ(targets_seen[0], 0);
  for (int64_t t = 1; t <= loader.samples_per_epoch() * length; ++t) EXPECT_EQ(targets_seen[t], 1) << t;
  EXPECT_EQ(loader.EpochOf(0), 0);
  EXPECT_EQ(loader.EpochOf(steps), 2);
}

TEST_F(LoaderTest, DocumentsAreSamples) {
  folder_.Write("b.txt", "one");
  folder_.Write("c.txt", std::string(40, 'x'));
  PrepareOptions options = Options({"a.txt", "b.txt", "c.txt"});
  options.output_folder = folder_.Path("three");
  ASSERT_TRUE(PrepareData(options).ok());
  dataset_ = Open("train", "three");
  ASSERT_NE(dataset_, nullptr);
  ASSERT_GE(dataset_->num_documents(), 2);
  tokens_.resize(static_cast<size_t>(dataset_->num_tokens()));
  ASSERT_TRUE(dataset_->Read(0, absl::MakeSpan(tokens_)).ok());
  const TrainLoader loader = Loader({.sequence_length = 16, .global_batch = 3, .seed = 3, .documents = true});
  // One epoch: every token but the first of each document is a target once, and no sample crosses a document.
  int64_t predicted = 0, whole = 0;
  for (int64_t sample = 0; sample < loader.samples_per_epoch(); ++sample) {
    const auto got = loader.GetBatch(sample / 3, sample % 3, 1);
    ASSERT_TRUE(got.ok()) << got.status();
    ASSERT_EQ(loader.Lengths(sample / 3, sample % 3, 1), got->lengths);
    ASSERT_EQ(got->lengths.size(), 1u);
    ASSERT_GE(got->lengths[0], 1);
    ASSERT_LE(got->lengths[0], 16);
    ASSERT_EQ(got->tokens.size(), static_cast<size_t>(got->lengths[0]));
    predicted += got->lengths[0];
    for (size_t i = 0; i + 1 < got->tokens.size(); ++i) {
      EXPECT_EQ(got->tokens[i + 1], got->targets[i]);
      EXPECT_NE(got->targets[i], dataset_->eos_id());
    }
    whole += got->targets.back() == dataset_->eos_id();
  }
  EXPECT_EQ(predicted, dataset_->num_tokens() - dataset_->num_documents());
  EXPECT_EQ(whole, dataset_->num_documents());
  const auto both = loader.GetBatch(0, 0, 3);
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->lengths, loader.Lengths(0, 0, 3));
  const TrainLoader windows = Loader({.sequence_length = 16, .global_batch = 3, .seed = 3});
  EXPECT_THAT(std::string(windows.CheckResume(loader.StateAt(1)).message()), HasSubstr("a document"));
  EXPECT_TRUE(loader.CheckResume(*LoaderState::FromJson(loader.StateAt(1).ToJson())).ok());
}

TEST_F(LoaderTest, AnySliceByAnyRankIsTheSame) {
  const TrainLoader loader = Loader({.sequence_length = 8, .global_batch = 12, .seed = 1});
  const TrainLoader other_rank = Loader({.sequence_length = 8, .global_batch = 12, .seed = 1});
  for (const int64_t step : {0, 1, 30, 1000000}) {
    const auto whole = *loader.GetBatch(step, 0, 12);
    for (const int64_t ranks : {1, 2, 3, 4}) {
      std::vector<int32_t> tokens, targets;
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const auto part = *other_rank.GetBatch(step, rank * 12 / ranks, 12 / ranks);
        tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
        targets.insert(targets.end(), part.targets.begin(), part.targets.end());
      }
      EXPECT_EQ(tokens, whole.tokens);
      EXPECT_EQ(targets, whole.targets);
    }
  }
  EXPECT_EQ(loader.GetBatch(3, 12, 0)->tokens.size(), 0u);
  const TrainLoader other_seed = Loader({.sequence_length = 8, .global_batch = 12, .seed = 2});
  EXPECT_NE(other_seed.GetBatch(0, 0, 12)->tokens, loader.GetBatch(0, 0, 12)->tokens);
}

TEST_F(LoaderTest, StateIsTheStepAndIsChecked) {
  const TrainLoaderOptions options = {.sequence_length = 8, .global_batch = 4, .seed = ~uint64_t{0}};
  const TrainLoader loader = Loader(options);
  const auto state = LoaderState::FromJson(loader.StateAt(17).ToJson());
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->step, 17);
  EXPECT_EQ(state->options.seed, options.seed);
  EXPECT_TRUE(loader.CheckResume(*state).ok());
  const auto differs = [&](auto change, const char* part) {
    LoaderState changed = *state;
    change(&changed);
    const absl::Status status = loader.CheckResume(changed);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  };
  differs([](LoaderState* s) { s->data_fingerprint = "x"; }, "training data");
  differs([](LoaderState* s) { s->options.seed = 1; }, "seed");
  differs([](LoaderState* s) { s->options.sequence_length = 9; }, "sequence length");
  differs([](LoaderState* s) { s->options.global_batch = 5; }, "global batch");
  for (const char* bad : {"", "{}", "[1]", "{\"step\": 1}",
                          R"({"step": -1, "seed": 0, "sequence_length": 1, "global_batch": 1,
                              "data_fingerprint": "a"})"}) {
    EXPECT_FALSE(LoaderState::FromJson(bad).ok()) << bad;
  }
}

TEST_F(LoaderTest, ImpossibleOptions) {
  EXPECT_FALSE(TrainLoader::Create(dataset_, {.sequence_length = 0, .global_batch = 1}).ok());
  EXPECT_FALSE(TrainLoader::Create(dataset_, {.sequence_length = 1, .global_batch = 0}).ok());
  const int64_t tokens = dataset_->num_tokens();
  EXPECT_THAT(
      std::string(
          TrainLoader::Create(dataset_, {.sequence_length = tokens, .global_batch = 1}).status().message()),
      HasSubstr("more text"));
  EXPECT_EQ(Loader({.sequence_length = tokens - 1, .global_batch = 1}).samples_per_epoch(), 1);
  EXPECT_FALSE(EvaluationLoader::Create(dataset_, 0).ok());
}

TEST_F(LoaderTest, EvaluationPredictsEveryTokenOnce) {
  const auto tokens = static_cast<int64_t>(tokens_.size());
  for (const int64_t length : {int64_t{1}, int64_t{7}, int64_t{64}, tokens, 2 * tokens}) {
    const auto loader = EvaluationLoader::Create(dataset_, length);
    ASSERT_TRUE(loader.ok());
    EXPECT_EQ(loader->num_windows(), (tokens + length - 1) / length);
    EXPECT_EQ(loader->text_bytes(), tokens - 1);  // a token a byte, and one EOS
    std::vector<int32_t> targets, inputs;
    for (int64_t w = 0; w < loader->num_windows(); w += 3) {
      const auto batch = loader->GetWindows(w, std::min<int64_t>(3, loader->num_windows() - w));
      ASSERT_TRUE(batch.ok()) << batch.status();
      targets.insert(targets.end(), batch->targets.begin(), batch->targets.end());
      inputs.insert(inputs.end(), batch->tokens.begin(), batch->tokens.end());
    }
    ASSERT_GE(static_cast<int64_t>(targets.size()), tokens);
    EXPECT_EQ(inputs[0], dataset_->eos_id());
    for (int64_t t = 0; t < static_cast<int64_t>(targets.size()); ++t) {
      EXPECT_EQ(targets[t], t < tokens ? tokens_[t] : -1);
      if (t > 0 && t < tokens) {
        EXPECT_EQ(inputs[t], tokens_[t - 1]);
      }
      EXPECT_GE(inputs[t], 0);
    }
  }
}

}  // namespace
}  // namespace cohort::runtime
