// Between the server's own types and the messages of inference.proto.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "cohort/v1/inference.pb.h"
#include "grpcpp/support/status.h"
#include "runtime/tokenizer/tokenizer.h"
#include "serving/generation.h"

namespace cohort::serving {

void ToWire(const TokenScores& scores, const runtime::Tokenizer& tokenizer, v1::TokenLogprobs& wire);
void ToWire(const TokenUsage& usage, v1::Usage& wire);
grpc::Status ToWire(const absl::Status& status);
absl::Status FromWire(const grpc::Status& status);

// Adds a delta to what is not sent yet: deltas of one completion become one.
void MergeDelta(const Delta& delta, const runtime::Tokenizer& tokenizer, v1::GenerateStreamResponse& pending);
// Adds one message of a stream to the whole answer, as a client or the unary call does.
void MergeResponse(const v1::GenerateStreamResponse& part, v1::GenerateResponse& whole);

}  // namespace cohort::serving
