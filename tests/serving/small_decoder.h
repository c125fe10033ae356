// Real decoders of a few kilobytes, for tests of what runs them.
#pragma once

#include <memory>
#include <vector>

#include "moe/expert_group.h"
#include "runtime/model/decoder.h"
#include "serving/generation.h"

namespace cohort::serving {

// Two blocks over the vocabulary of ByteTokenizer, context 64, the same weights every time. Experts, where
// the family has them, are divided over `experts`.
std::unique_ptr<runtime::Decoder> SmallDecoder(const char* model_type, moe::ExpertGroup experts = {},
                                               runtime::Device& device = runtime::CpuDevice());

int64_t BytesOfPage(const runtime::Decoder& decoder, int64_t page_size);

// Greedy requests, some of which begin alike.
std::vector<GenerationRequest> SmallRequests();

// What the request's answer must be: the largest of the last row of Logits, token by token.
std::vector<int32_t> GreedyByLogits(runtime::Decoder& decoder, const GenerationRequest& request);

}  // namespace cohort::serving
