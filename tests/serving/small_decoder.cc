#include "tests/serving/small_decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "moe/moe_layer.h"
#include "tests/serving/test_tokenizer.h"
#include "tests/support/tiny_model.h"

namespace cohort::serving {

std::unique_ptr<runtime::Decoder> SmallDecoder(const char* model_type, moe::ExpertGroup experts,
                                               runtime::Device& device) {
  runtime::ModelConfig config = runtime::TinyConfig(model_type);
  config.vocab_size = kByteVocabulary;
  config.initializer_range = 0.6;  // greedy choices far from ties
  runtime::DecoderOptions options;
  options.trainable = false;
  if (config.num_experts > 0) {
    options.experts = moe::MakeMoeFactory(std::make_shared<moe::ExpertGroup>(std::move(experts)));
  }
  return runtime::MakeDecoder(config, device, std::move(options), 5);
}

int64_t BytesOfPage(const runtime::Decoder& decoder, int64_t page_size) {
  const runtime::ModelConfig& config = decoder.config();
  return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * page_size *
         static_cast<int64_t>(SizeOf(decoder.compute()));
}

std::vector<GenerationRequest> SmallRequests() {
  std::mt19937 random(4);
  std::vector<int32_t> common;
  for (int i = 0; i < 10; ++i) common.push_back(static_cast<int32_t>(random() % 256));
  std::vector<GenerationRequest> requests(6);
  for (size_t i = 0; i < requests.size(); ++i) {
    GenerationRequest& request = requests[i];
    if (i % 2 == 0) request.prompt = common;
    for (size_t j = 0; j < 1 + 3 * i; ++j) request.prompt.push_back(static_cast<int32_t>(random() % 256));
    request.sampling.temperature = 0;
    request.stopping.max_tokens = 14;
    request.stopping.ignore_eos = true;
  }
  return requests;
}

std::vector<int32_t> GreedyByLogits(runtime::Decoder& decoder, const GenerationRequest& request) {
  std::vector<int32_t> tokens = request.prompt, output;
  for (int i = 0; i < request.stopping.max_tokens; ++i) {
    const auto logits = decoder.Logits(runtime::PackBatch(decoder.device(), {tokens}));
    EXPECT_TRUE(logits.ok()) << logits.status();
    if (!logits.ok()) return {};
    const std::vector<double> row = runtime::ToHost(logits->Row(static_cast<int64_t>(tokens.size()) - 1));
    output.push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
    tokens.push_back(output.back());
  }
  return output;
}

}  // namespace cohort::serving
