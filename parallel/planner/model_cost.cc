#include "parallel/planner/model_cost.h"

#include <algorithm>

#include "runtime/model/policy.h"

namespace cohort::parallel::planner {
namespace {

constexpr double kStatisticBytes = 4;
constexpr double kIndexBytes = 4;

}  // namespace

ModelCost::ModelCost(const runtime::ModelConfig& config, int64_t sequence_length)
    : config_(config), sequence_length_(sequence_length) {
  const int64_t width = config.hidden_size, head = config.head_dim;
  const int64_t embedding = config.vocab_size * width;
  const int64_t attention = 2 * width * head * (config.num_attention_heads + config.num_key_value_heads);
  const int64_t norms = 2 * width + (config.qk_norm ? 2 * head : 0);
  const int64_t dense = 3 * width * config.intermediate_size;
  const int64_t expert = 3 * width * config.moe_intermediate_size;
  const int64_t shared = 3 * width * config.shared_expert_intermediate_size;
  const int64_t router = width * config.num_experts;
  // Half of the full product: 2 x 2 S / 2 H C.
  const double scores =
      2.0 * static_cast<double>(sequence_length) * static_cast<double>(config.num_attention_heads * head);
  const auto at = [this](Layer layer) -> LayerCost& { return layers_[static_cast<int>(layer)]; };
  at(Layer::kEmbedding).parameters = {0, embedding, 0};
  at(Layer::kDense) = {{norms, attention + dense, 0}, 2.0 * static_cast<double>(attention + dense), scores};
  at(Layer::kSparse) = {
      {norms + router + shared, attention, config.num_experts * expert},
      2.0 * static_cast<double>(attention + router + shared + config.num_experts_per_tok * expert),
      scores};
  at(Layer::kHead) = {
      {width, config.tie_word_embeddings ? 0 : embedding, 0}, 2.0 * static_cast<double>(embedding), 0};
  for (int block = 0; block < config.num_hidden_layers; ++block) {
    blocks_.push_back(config.IsSparse(block) ? Layer::kSparse : Layer::kDense);
  }
}

ParameterCount ModelCost::parameters() const {
  ParameterCount sum;
  const auto add = [&](Layer of) {
    const ParameterCount& count = layer(of).parameters;
    sum.replicated += count.replicated;
    sum.tensor += count.tensor;
    sum.expert += count.expert;
  };
  add(Layer::kEmbedding);
  for (const Layer block : blocks_) add(block);
  add(Layer::kHead);
  return sum;
}

ParameterCount ModelCost::ParametersOf(Layer layer, bool apart) const {
  ParameterCount count = this->layer(layer).parameters;
  if (apart && layer == Layer::kHead && config_.tie_word_embeddings) {
    count.tensor = this->layer(Layer::kEmbedding).parameters.tensor;
  }
  return count;
}

double ModelCost::forward_flops() const {
  double sum = layer(Layer::kEmbedding).flops() + layer(Layer::kHead).flops();
  for (const Layer block : blocks_) sum += layer(block).flops();
  return sum;
}

double ModelCost::KeptBytes(Layer layer, double tokens, int tensor, int compute_bytes, bool recompute) const {
  const auto width = static_cast<double>(config_.hidden_size);
  const double rows = tokens / tensor;  // of this rank between the matrices
  const double stream = rows * width * compute_bytes;
  if (layer == Layer::kEmbedding) return 0;
  if (layer == Layer::kHead || recompute) return stream;  // the gradient of its input; a block's input
  // Both inputs of norms, with a statistic a row.
  double bytes = 2 * (stream + rows * kStatisticBytes);
  // Attention [T, ..]: its input, q, k and v, twice where q and k are normalised, and what comes out.
  const double q = static_cast<double>(config_.num_attention_heads * config_.head_dim) / tensor;
  const double kv = static_cast<double>(config_.num_key_value_heads * config_.head_dim) / tensor;
  double row = (width + 2 * q + 2 * kv) * compute_bytes;
  row += static_cast<double>(config_.num_attention_heads) / tensor * kStatisticBytes;
  if (config_.qk_norm) {
    row += (q + kv) * compute_bytes;
    row += static_cast<double>(config_.num_attention_heads + config_.num_key_value_heads) / tensor *
           kStatisticBytes;
  }
  bytes += tokens * row;
  if (layer == Layer::kDense) {
    return bytes +
           tokens * (width + 3.0 * static_cast<double>(config_.intermediate_size) / tensor) * compute_bytes;
  }
  // The router's input and probabilities, and for each choice its weight and place, what an expert gets, computes and
  // gives back.
  const auto chosen = static_cast<double>(config_.num_experts_per_tok);
  double expert = width * compute_bytes + static_cast<double>(config_.num_experts) * kStatisticBytes;
  expert += chosen * ((2 * width + 3.0 * static_cast<double>(config_.moe_intermediate_size)) * compute_bytes +
                      kStatisticBytes + kIndexBytes);
  expert += 3.0 * static_cast<double>(config_.shared_expert_intermediate_size) * compute_bytes;
  return bytes + rows * expert;
}

double ModelCost::WorkingBytes(Layer layer, double tokens, int tensor, int compute_bytes,
                               bool recompute) const {
  const auto width = static_cast<double>(config_.hidden_size);
  if (layer == Layer::kEmbedding) return tokens * width * compute_bytes;
  if (layer == Layer::kHead) {
    const int64_t vocabulary = (config_.vocab_size + tensor - 1) / tensor;
    const int64_t least = runtime::model_policy::kLogitRows;
    const int64_t fits = static_cast<int64_t>(runtime::model_policy::kLogitBytes) /
                         (vocabulary * compute_bytes) / least * least;
    const double chunk = std::min(tokens, static_cast<double>(std::max(fits, least)));
    return chunk * static_cast<double>(vocabulary) * compute_bytes +
           tokens * (width * compute_bytes + kStatisticBytes);
  }
  // The gradient that goes in, and the one that comes out, of the widest thing.
  const double inner =
      layer == Layer::kDense ? static_cast<double>(config_.intermediate_size) / tensor : width;
  const double gradients = tokens * (2 * width + inner) * compute_bytes;
  return gradients + (recompute ? KeptBytes(layer, tokens, tensor, compute_bytes, false) : 0);
}

}  // namespace cohort::parallel::planner
