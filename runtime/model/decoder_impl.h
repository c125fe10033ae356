// What is behind Decoder: a part's layers, made (decoder.cc), trained (decoder_passes.cc) and asked
// (decoder_inference.cc).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "comm/check.h"
#include "runtime/model/block.h"
#include "runtime/model/decoder.h"
#include "runtime/model/half_stream.h"
#include "runtime/model/loss_head.h"

namespace cohort::runtime {

class DecoderImpl final : public Decoder {
 public:
  DecoderImpl(ModelConfig config, Device& device, DecoderOptions options)
      : config_(std::move(config)), device_(device), options_(std::move(options)) {}

  absl::Status Build();

  const ModelConfig& config() const override { return config_; }
  Device& device() const override { return device_; }
  DataType compute() const override { return options_.compute; }
  const DecoderPart& part() const override { return options_.part; }
  std::vector<ParameterGroup>& groups() override { return groups_; }
  Parameter* Find(const std::string& name) override;
  void Initialize(uint64_t seed) override;
  void SetHooks(ParameterHooks hooks) override { hooks_ = std::move(hooks); }

  absl::StatusOr<LossSums> ForwardBackward(const TokenBatch& batch, const LossScale& scale) override;
  absl::StatusOr<LossSums> Evaluate(const TokenBatch& batch) override;
  absl::StatusOr<Tensor> Forward(const TokenBatch& batch, const LossScale& scale, const Tensor& x,
                                 std::unique_ptr<Saved>* saved, LossSums* sums) override;
  absl::StatusOr<Tensor> Backward(const Tensor& dy, Saved& saved) override;
  absl::StatusOr<Tensor> BackwardInput(const Tensor& dy, Saved& saved) override;
  absl::Status BackwardWeight(Saved& saved) override;
  absl::StatusOr<Tensor> Logits(const TokenBatch& batch) override;
  absl::StatusOr<Tensor> ForwardPaged(const PagedBatch& batch, KvCache& cache) override;
  bool paged_is_recordable() const override;
  KvCache MakeCache(int64_t pages, int64_t page_size) override;
  void UpdateBalance(const std::vector<std::vector<int64_t>>& load) override;

 private:
  using Hook = std::function<absl::Status(int group)>;
  static absl::Status Call(const Hook& hook, int group) { return hook ? hook(group) : absl::OkStatus(); }

  struct PartSaved final : Saved {
    TokenBatch batch;
    StreamRows rows;
    LossScale scale;
    std::vector<Block::Saved> blocks;
    std::vector<HalfGradient> gradient;  // of the last block's output, where the head is here
  };

  // Group of the i-th block here; the embedding's is 0 and the head's the last.
  int BlockGroup(size_t block) const { return static_cast<int>(block) + (options_.part.embedding ? 1 : 0); }
  int HeadGroup() const { return static_cast<int>(groups_.size()) - 1; }
  // Of the embedding that the head multiplies with, its own copy or the one that is here; -1: the head has its own matrix.
  int TiedGroup() const {
    if (!options_.part.head || !config_.tie_word_embeddings) return -1;
    return options_.part.head_copy ? HeadGroup() - 1 : 0;
  }
  TensorGroup& tensor() const { return options_.tensor == nullptr ? WholeTensors() : *options_.tensor; }

  absl::Status CheckMemory() const;
  absl::Status CheckBatch(const TokenBatch& batch) const;
  // kI32 [T]: rows of this part's embedding; -1 for words of other parts.
  Tensor EmbeddingRows(const Tensor& tokens) const;
  // This rank's rows of tokens [T].
  absl::StatusOr<RowsInFlight> Embed(const Tensor& tokens);
  absl::Status EmbeddingBackward(const std::vector<HalfGradient>& gradient, const StreamRows& rows);
  // The embedding or x, and all blocks; saved null: nothing is kept. The stream has arrived.
  absl::StatusOr<std::vector<HalfStream>> ForwardBlocks(const TokenBatch& batch, const StreamRows& rows,
                                                        const LossScale& scale, const Tensor& x,
                                                        PartSaved* saved, LossSums* sums);
  absl::StatusOr<Tensor> BackwardBlocks(const Tensor& dy, PartSaved& saved, bool weights);
  Parameter* AddEmbedding(const char* group);
  // Calls `hook` of every group that the head uses: its own, and before it TiedGroup.
  absl::Status HeadUses(const Hook& hook);
  template <typename Use>
  absl::Status WithHead(Use use) {
    COHORT_RETURN_IF_ERROR(HeadUses(hooks_.before_forward));
    COHORT_RETURN_IF_ERROR(use());
    return HeadUses(hooks_.after_forward);
  }

  ModelConfig config_;
  Device& device_;
  DecoderOptions options_;
  ParameterHooks hooks_;
  std::vector<ParameterGroup> groups_;
  std::unordered_map<std::string, Parameter*> by_name_;
  Parameter *embedding_ = nullptr, *head_matrix_ = nullptr;  // the second where tied
  std::vector<std::unique_ptr<Block>> blocks_;
  std::unique_ptr<LossHead> head_;
};

}  // namespace cohort::runtime
