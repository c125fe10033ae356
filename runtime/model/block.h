// A decoder block: x + attention(norm(x)), then that + feed_forward(norm(that)). It moves the rows between
// the ranks of a tensor group; its layers compute.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/attention_layer.h"
#include "runtime/model/feed_forward.h"
#include "runtime/model/half_stream.h"

namespace cohort::runtime {

// Halves take turns: in the forward the first goes first, in the backward the second. While a layer computes
// one half, what the other needs before its turn (a sum over ranks, a norm, a gather) is under way. All ranks
// start the same transfers in the same order.
class Block {
 public:
  struct Saved {
    struct Half {
      Tensor x;  // the block's input [t, D]
      AttentionLayer::Saved attention;
      Tensor rstd1, x_mid, rstd2;
      std::unique_ptr<FeedForward::Saved>
          feed_forward;  // where it is not divided, of all halves, in the first one
    };
    std::vector<Half> halves;
  };

  // Adds its parameters to `group` (allocated later). `factory` makes the feed-forward where the block is
  // sparse. `tensor` outlives this.
  static absl::StatusOr<std::unique_ptr<Block>> Create(const ModelConfig& config, int layer, Tensor rope,
                                                       Device& device, DataType compute,
                                                       const FeedForwardFactory& factory, TensorGroup& tensor,
                                                       ParameterGroup& group);

  enum class Keep : uint8_t { kNothing, kInput, kAll };
  // The stream may still be on its way when it returns: the next block takes it so, others call
  // HalfStream::Arrive. kInput: saved gets the block's input alone, from which Recompute runs it again.
  absl::Status Forward(std::vector<HalfStream>& stream, const TokenBatch& batch, const StreamRows& rows,
                       const LossScale& scale, Keep keep, Saved& saved, LossSums* sums) const;
  absl::Status Recompute(const TokenBatch& batch, const StreamRows& rows, const LossScale& scale,
                         Saved& saved) const;

  // Gradient of the block's input from that of its output, which stays as it is until the weights' are made.
  // Accumulates the gradients of the norms; those of the matrices are BackwardWeight's. `before`, where not
  // null, is the block that goes on with it: its transfers start when they can.
  absl::Status BackwardInput(std::vector<HalfGradient>& gradient, Saved& saved, const Block* before) const;
  void BackwardWeight(Saved& saved) const;
  // Both; the weights' gradients are made while those of the input travel.
  absl::Status Backward(std::vector<HalfGradient>& gradient, Saved& saved, const Block* before) const;

  absl::Status ForwardPaged(Stream& stream, const PagedBatch& batch, const KvPages& pages) const;

  // Whether the feed-forward is a mixture of experts, with a row of expert_load.
  bool sparse() const { return sparse_; }
  FeedForward& feed_forward() { return *feed_forward_; }
  const FeedForward& feed_forward() const { return *feed_forward_; }

 private:
  Block(const ModelConfig& config, const std::string& prefix, Tensor rope, TensorGroup& tensor,
        ParameterGroup& group);

  // Makes the input of a layer behind this norm, and starts to gather it; once.
  absl::Status BeginLayer(HalfStream& half, const Parameter& norm) const;
  // The same where nothing has to be waited for.
  void BeginIfHere(HalfStream& half, const Parameter& norm, absl::Status& status) const;
  absl::Status ForwardAttention(std::vector<HalfStream>& stream, const StreamRows& rows, Keep keep,
                                Saved& saved) const;
  absl::Status ForwardDivided(std::vector<HalfStream>& stream, const TokenBatch& batch,
                              const StreamRows& rows, const LossScale& scale, Keep keep, Saved& saved,
                              LossSums* sums) const;
  absl::Status ForwardTogether(std::vector<HalfStream>& stream, const TokenBatch& batch,
                               const StreamRows& rows, const LossScale& scale, Keep keep, Saved& saved,
                               LossSums* sums) const;

  // Starts to gather the gradient of the output of a layer; once.
  void BeginBackward(HalfGradient& half) const;
  // The same for the block's last layer, where that one is divided.
  void BeginBlock(HalfGradient& half) const;
  // Takes the gradient behind a layer's norm, where it is on its way.
  enum class Norm : uint8_t { kAttention, kFeedForward };
  absl::Status PassNorm(HalfGradient& half, Saved::Half& saved, Norm norm) const;
  // BackwardInput up to what is on its way.
  absl::Status StartBackward(std::vector<HalfGradient>& gradient, Saved& saved, const Block* before) const;
  absl::Status BackwardFeedForward(std::vector<HalfGradient>& gradient, Saved& saved) const;
  absl::Status FinishBackward(std::vector<HalfGradient>& gradient, Saved& saved, const Block* before) const;
  void Weights(Saved& saved, const Meanwhile& meanwhile) const;

  TensorGroup& tensor_;
  double eps_;
  Parameter *norm1_, *norm2_;
  AttentionLayer attention_;
  std::unique_ptr<FeedForward> feed_forward_;
  bool sparse_ = false;
};

}  // namespace cohort::runtime
