#include "parallel/planner/measure_layers.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "comm/check.h"
#include "moe/expert_group.h"
#include "moe/moe_layer.h"
#include "parallel/planner/policy.h"
#include "runtime/model/decoder.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel::planner {
namespace {

using runtime::Tensor;
using Clock = std::chrono::steady_clock;

double Since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// One stall among many must not count.
double Middle(std::vector<double> seconds) {
  COHORT_CHECK(!seconds.empty(), "nothing was measured");
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// The first of `size` parts, whose others answer at once: what is here computes as it would among them.
class PartAlone final : public runtime::TensorGroup {
 public:
  explicit PartAlone(int size) : size_(size) {}
  int rank() const override { return 0; }
  int size() const override { return size_; }
  // The rows that are here stand for all.
  runtime::RowsInFlight StartGatherRows(const Tensor& x, int64_t total) override {
    if (size_ == 1) return runtime::RowsInFlight(x);
    const Tensor all = Tensor::Empty(x.device(), {total, x.dim(1)}, x.dtype());
    for (int64_t to = 0; to < total; to += x.dim(0)) {
      const int64_t rows = std::min(x.dim(0), total - to);
      x.device().ops().Copy(x.Slice(0, rows), all.Slice(to, to + rows));
    }
    return runtime::RowsInFlight(all);
  }
  runtime::RowsInFlight StartReduceScatterRows(const Tensor& y) override {
    return runtime::RowsInFlight(size_ == 1 ? y
                                            : y.Slice(0, runtime::RowsOf(y.dim(0), 0, size_).end).Clone());
  }
  absl::Status Sum(const Tensor&) override { return absl::OkStatus(); }
  absl::Status Max(const Tensor&) override { return absl::OkStatus(); }

 private:
  int size_;
};

runtime::TokenBatch BatchOf(runtime::Device& device, int64_t tokens, int64_t sequence, int64_t vocabulary) {
  std::vector<int32_t> ids, targets, positions, offsets = {0};
  for (int64_t i = 0; i < tokens; ++i) {
    ids.push_back(static_cast<int32_t>(i * 7919 % vocabulary));
    targets.push_back(static_cast<int32_t>((i + 1) * 7919 % vocabulary));
    positions.push_back(static_cast<int32_t>(i % sequence));
    if ((i + 1) % sequence == 0 || i + 1 == tokens) offsets.push_back(static_cast<int32_t>(i + 1));
  }
  const auto tensor = [&](const std::vector<int32_t>& values) {
    return Tensor::FromHost(device, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
  };
  return {tensor(ids), tensor(targets), tensor(positions), tensor(offsets), offsets};
}

}  // namespace

// Some layers of one kind.
struct LayerStack {
  std::unique_ptr<runtime::Decoder> decoder;
  std::shared_ptr<runtime::TensorGroup> tensor;
  int layers = 1;
  bool head = false;
};

namespace {

using Stack = LayerStack;

absl::StatusOr<Stack> MakeStack(const ModelCost& model, Layer layer, int tensor, int expert,
                                runtime::Device& device, DataType compute) {
  runtime::ModelConfig config = model.config();
  Stack stack;
  stack.tensor = std::make_shared<PartAlone>(tensor);
  stack.head = layer == Layer::kHead;
  config.tie_word_embeddings = false;
  config.decoder_sparse_step = 1;
  config.mlp_only_layers.clear();
  if (stack.head) {
    config.num_hidden_layers = 1;
  } else {
    // Ranks of an expert group have so many of the experts, and of every rank's tokens those that chose them: as many
    // as of their own tokens there are for fewer experts.
    config.vocab_size = std::min<int64_t>(config.vocab_size, policy::kMeasuredVocabulary);
    if (layer == Layer::kDense) config.num_experts = config.num_experts_per_tok = 0;
    if (layer == Layer::kSparse) config.num_experts /= expert;
    const auto bytes =
        static_cast<double>(model.layer(layer).parameters.total()) * static_cast<double>(SizeOf(compute));
    stack.layers = std::clamp(static_cast<int>(std::ceil(policy::kMeasuredWeightBytes / bytes)), 1,
                              std::max(1, std::min(model.blocks(), policy::kMeasuredBlocks)));
    config.num_hidden_layers = stack.layers;
  }
  COHORT_ASSIGN_OR_RETURN(
      stack.decoder,
      runtime::Decoder::Create(config, device,
                               {.compute = compute,
                                .experts = moe::MakeMoeFactory(std::make_shared<moe::ExpertGroup>()),
                                .part = {.first_block = stack.head ? 1 : 0,
                                         .last_block = stack.head ? 1 : stack.layers,
                                         .embedding = true,
                                         .head = stack.head},
                                .tensor = stack.tensor}));
  stack.decoder->Initialize(1);
  return stack;
}

absl::StatusOr<LayerSeconds> RunOnce(Stack& stack, const runtime::TokenBatch& batch) {
  std::unique_ptr<runtime::Decoder::Saved> saved;
  runtime::LossSums sums;
  const runtime::LossScale scale = {.tokens = static_cast<double>(batch.num_tokens()),
                                    .sequences = static_cast<double>(batch.num_sequences())};
  const auto begin = Clock::now();
  COHORT_ASSIGN_OR_RETURN(const Tensor y, stack.decoder->Forward(batch, scale, {}, &saved, &sums));
  stack.decoder->device().Synchronize();
  const double forward = Since(begin);
  COHORT_RETURN_IF_ERROR(stack.decoder->Backward(y, *saved).status());
  stack.decoder->device().Synchronize();
  const double all = Since(begin);
  const double layers = stack.layers;
  if (stack.head) return LayerSeconds{all, 0};
  return LayerSeconds{forward / layers, (all - forward) / layers};
}

// The middle one of some, after one that warms up.
absl::StatusOr<LayerSeconds> Time(Stack& stack, const runtime::TokenBatch& batch) {
  std::vector<LayerSeconds> times;
  for (int i = 0; i <= policy::kMeasuredRuns; ++i) {
    COHORT_ASSIGN_OR_RETURN(const LayerSeconds seconds, RunOnce(stack, batch));
    if (i > 0) times.push_back(seconds);
  }
  std::sort(times.begin(), times.end(), [](const LayerSeconds& a, const LayerSeconds& b) {
    return a.forward + a.backward < b.forward + b.backward;
  });
  return times[times.size() / 2];
}

// The fewest, the most, and powers of four between them.
std::vector<int64_t> TokensToMeasure(const MeasuredRange& range) {
  const auto fewest = static_cast<int64_t>(std::max(1.0, std::floor(range.fewest)));
  const auto most = std::max(fewest, static_cast<int64_t>(std::ceil(range.most)));
  std::vector<int64_t> tokens = {fewest};
  for (int64_t next = fewest * 4; next < most; next *= 4) tokens.push_back(next);
  if (tokens.back() != most) tokens.push_back(most);
  return tokens;
}

}  // namespace

absl::StatusOr<LayerTimes> MeasureLayers(const ModelCost& model, runtime::Device& device, DataType compute,
                                         const MeasuredRange& range) {
  const runtime::ModelConfig& config = model.config();
  LayerTimes times;
  std::vector<Layer> kinds = {Layer::kHead};
  for (const Layer kind : {Layer::kDense, Layer::kSparse}) {
    for (int block = 0; block < model.blocks(); ++block) {
      if (model.block(block) != kind) continue;
      kinds.push_back(kind);
      break;
    }
  }
  const auto begin = Clock::now();
  for (const Layer kind : kinds) {
    for (int tensor = 1; tensor <= range.tensor; tensor *= 2) {
      if (config.num_attention_heads % tensor != 0 || config.num_key_value_heads % tensor != 0) continue;
      const int experts = kind == Layer::kSparse ? range.expert : 1;
      for (int expert = 1; expert <= experts; expert *= 2) {
        if (expert > 1 &&
            (config.num_experts % expert != 0 || config.num_experts / expert < config.num_experts_per_tok)) {
          continue;
        }
        if (!times.empty() && Since(begin) > policy::kMeasuringSeconds) continue;
        COHORT_ASSIGN_OR_RETURN(Stack stack, MakeStack(model, kind, tensor, expert, device, compute));
        double expected = 0;  // seconds of the next run
        for (const int64_t tokens : TokensToMeasure(range)) {
          if (expected * policy::kMeasuredRuns > policy::kMeasuringSeconds / 4) break;
          const runtime::TokenBatch batch = BatchOf(device, tokens, std::min(tokens, model.sequence_length()),
                                                    stack.decoder->config().vocab_size);
          COHORT_ASSIGN_OR_RETURN(const LayerSeconds seconds, Time(stack, batch));
          times.Add(kind, tensor, expert, static_cast<double>(tokens), seconds);
          expected = 4 * stack.layers * (seconds.forward + seconds.backward);
        }
      }
    }
  }
  return times;
}

struct BlockLoad::State {
  LayerStack stack;
  runtime::TokenBatch batch;
};

BlockLoad::BlockLoad(std::unique_ptr<State> state) : state_(std::move(state)) {}
BlockLoad::BlockLoad(BlockLoad&&) noexcept = default;
BlockLoad::~BlockLoad() = default;

absl::StatusOr<BlockLoad> BlockLoad::Create(const ModelCost& model, runtime::Device& device, DataType compute,
                                            int64_t tokens) {
  auto state = std::make_unique<State>();
  COHORT_ASSIGN_OR_RETURN(state->stack, MakeStack(model, model.block(0), 1, 1, device, compute));
  state->batch = BatchOf(device, tokens, std::min(tokens, model.sequence_length()),
                         state->stack.decoder->config().vocab_size);
  COHORT_RETURN_IF_ERROR(RunOnce(state->stack, state->batch).status());
  return BlockLoad(std::move(state));
}

absl::StatusOr<double> BlockLoad::Run(int times, const std::function<absl::Status()>& meet) {
  std::vector<double> seconds;
  for (int i = 0; i < times; ++i) {
    const auto begin = Clock::now();
    COHORT_RETURN_IF_ERROR(RunOnce(state_->stack, state_->batch).status());
    if (meet) COHORT_RETURN_IF_ERROR(meet());
    seconds.push_back(Since(begin));
  }
  return Middle(std::move(seconds));
}

double MeasureUpdate(runtime::Device& device, DataType compute) {
  const int64_t size = policy::kMeasuredUpdate;
  const Tensor master = Tensor::Zeros(device, {size}, DataType::kF32);
  const Tensor grad = master.Clone(), m = master.Clone(), v = master.Clone();
  const Tensor value = compute == DataType::kF32 ? Tensor() : Tensor::Zeros(device, {size}, compute);
  std::vector<double> times;
  for (int i = 0; i <= policy::kMeasuredRuns; ++i) {
    const auto begin = Clock::now();
    device.ops().AdamW(master, grad, m, v, value,
                       {.lr = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0, .step = 1});
    device.Synchronize();
    if (i > 0) times.push_back(Since(begin));
  }
  return Middle(std::move(times)) / static_cast<double>(size);
}

}  // namespace cohort::parallel::planner
