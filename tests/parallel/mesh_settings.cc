#include "tests/parallel/mesh_settings.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "tests/support/tiny_model.h"

namespace cohort::parallel {
namespace {

struct HarnessModel {
  const char* name;
  const char* family;
  const char* gate;
  bool tied;
  double capacity;
  int64_t sparse_step;
  int64_t shared_expert;
};
constexpr HarnessModel kModels[] = {
    {"dense", "llama", "", false, 0, 1, 0},
    {"softmax", "qwen3_moe", "softmax", false, 0, 1, 8},
    {"tied", "qwen3", "", true, 0, 1, 0},
    {"sigmoid", "qwen3_moe", "sigmoid", false, 0, 1, 0},
    {"mixed", "qwen3_moe", "softmax", false, 0, 2, 8},  // every other block is dense
    {"capacity", "qwen3_moe", "softmax", false, 1, 1, 8},
};

const HarnessModel& ModelNamed(const std::string& name) {
  for (const HarnessModel& row : kModels) {
    if (name == row.name) return row;
  }
  COHORT_CHECK(false, "no model %s", name.c_str());
}

// Rows of the table of shardings without codecs, whose gradients are exact.
std::vector<std::string> Shardings() {
  std::vector<std::string> names;
  for (const ShardingRow& row : ShardingRows()) {
    if (!row.sharding.gather_codec && !row.sharding.reduce_codec) names.emplace_back(row.name);
  }
  names.emplace_back("secondary");  // zero++ without its codecs
  return names;
}

struct ContextChoice {
  const char* name;
  SplitKind split;
  Moves forward, backward;
  int head_parts;  // 0: all ranks of the group
};
constexpr Moves kKeys = Moves::kKeysAndValues, kQueries = Moves::kQueries;
constexpr ContextChoice kContexts[] = {
    {"zigzag ring", SplitKind::kZigzag, kKeys, kKeys, 1},
    {"contiguous ring", SplitKind::kContiguous, kKeys, kKeys, 1},
    {"striped ring", SplitKind::kStriped, kKeys, kKeys, 1},
    {"zigzag token-ring", SplitKind::kZigzag, kQueries, kQueries, 1},
    {"striped token-ring, ring back", SplitKind::kStriped, kQueries, kKeys, 1},
    {"contiguous ulysses", SplitKind::kContiguous, kKeys, kKeys, 0},
    {"zigzag 2 x ulysses in ring", SplitKind::kZigzag, kKeys, kQueries, 2},
};

struct ScheduleChoice {
  const char* name;
  int stages_per_rank;
};
constexpr ScheduleChoice kSchedules[] = {{"1f1b", 1},    {"gpipe", 1},     {"interleaved", 2},
                                         {"zb-h1", 1},   {"zb-v", 2},      {"dualpipe-v", 2},
                                         {"zb-auto", 1}, {"zb-auto-v", 2}, {"gpipe", 2}};

int HeadParts(const MeshSetting& setting) {
  const int parts = kContexts[setting.context].head_parts;
  return parts == 0 ? setting.shape.context : parts;
}

int Replicate(const MeshSetting& setting, int ranks) {
  const MeshShape& s = setting.shape;
  return ranks / (s.pipeline * s.shard * s.context * s.tensor);
}

// What a covering set brings together: axes that divide something, and everything else.
void FeaturesOf(const MeshSetting& setting, int ranks, std::vector<std::string>& axes,
                std::vector<std::string>& all) {
  const MeshShape& shape = setting.shape;
  const std::pair<const char*, int> sizes[] = {
      {"pipeline", shape.pipeline}, {"shard", shape.shard},   {"context", shape.context},
      {"tensor", shape.tensor},     {"expert", shape.expert}, {"replicate", Replicate(setting, ranks)}};
  for (const auto& [name, size] : sizes) {
    if (size > 1) axes.emplace_back(name);
  }
  all = axes;
  all.push_back(absl::StrCat("model ", setting.model));
  all.push_back(absl::StrCat("sharding ", setting.sharding));
  if (shape.context > 1) all.push_back(absl::StrCat("context ", setting.context));
  if (shape.pipeline > 1) all.push_back(absl::StrCat("schedule ", setting.schedule));
  if (shape.tensor > 1) all.push_back(absl::StrCat("split ", setting.split));
  all.push_back(absl::StrCat("recompute ", setting.recompute));
}

// Numbers for pairs of features.
class PairNumbers {
 public:
  std::vector<size_t> Of(const MeshSetting& setting, int ranks) {
    std::vector<std::string> axes, all;
    FeaturesOf(setting, ranks, axes, all);
    std::vector<size_t> pairs;
    for (const std::string& axis : axes) {
      for (const std::string& other : all) {
        if (axis != other) pairs.push_back(numbers_.emplace(axis + other, numbers_.size()).first->second);
      }
    }
    return pairs;
  }
  size_t size() const { return numbers_.size(); }

 private:
  std::unordered_map<std::string, size_t> numbers_;
};

}  // namespace

std::string MeshSetting::DebugString() const {
  return absl::StrCat(model, ", ", shape.DebugString(), ", ", sharding,
                      shape.context > 1 ? absl::StrCat(", ", kContexts[context].name) : "",
                      shape.pipeline > 1 ? absl::StrCat(", ", kSchedules[schedule].name, " with ",
                                                        kSchedules[schedule].stages_per_rank)
                                         : "",
                      recompute ? ", recompute" : "", shape.tensor > 1 && split ? ", halves" : "");
}

std::vector<std::string> HarnessModels() {
  std::vector<std::string> names;
  for (const HarnessModel& row : kModels) names.emplace_back(row.name);
  return names;
}

bool IsSparseModel(const std::string& model) { return *ModelNamed(model).gate != '\0'; }

runtime::ModelConfig HarnessConfig(const std::string& model, int ranks) {
  const HarnessModel& row = ModelNamed(model);
  runtime::ModelConfig config = runtime::TinyConfig(row.family);
  config.num_hidden_layers = ranks > 4 ? 8 : 4;
  config.num_key_value_heads = ranks;
  config.num_attention_heads = 2 * ranks;
  config.head_dim = 8;  // of fewer coordinates some heads are nearly zero, and their norms divide by that
  config.tie_word_embeddings = row.tied;
  if (!IsSparseModel(model)) return config;
  config.num_experts = ranks < 4 ? 2 * ranks : ranks;
  config.decoder_sparse_step = row.sparse_step;
  config.shared_expert_intermediate_size = row.shared_expert;
  config.router.gate = row.gate;
  config.router.z_loss_coef = 0.001;
  config.router.bias_update_rate = 0.001;
  config.router.capacity_factor = row.capacity;
  return config;
}

ParallelOptions OptionsOf(const MeshSetting& setting) {
  ParallelOptions options = {.recompute = setting.recompute, .global_batch = 7, .micro_batch = 1};
  auto sharding = setting.sharding == "secondary" ? ParseSharding("zero-3", "shard", "", "")
                                                  : ParseSharding(setting.sharding);
  COHORT_CHECK(sharding.ok(), "%s", sharding.status().ToString().c_str());
  options.sharding = *sharding;
  if (setting.split) {  // of several sequences, so that there is a place between two
    options.micro_batch = 3;
    options.split_batch = SplitRule{.tile = 2, .least = 2};
  }
  const ContextChoice& context = kContexts[setting.context];
  const int parts = HeadParts(setting);
  options.context = {.split = context.split,
                     .ways = {.forward = {context.forward, parts}, .backward = {context.backward, parts}}};
  const ScheduleChoice& schedule = kSchedules[setting.shape.pipeline > 1 ? setting.schedule : 0];
  options.schedule = schedule.name;
  options.stages_per_rank = schedule.stages_per_rank;
  return options;
}

std::vector<MeshShape> EveryShape(int ranks, bool experts) {
  std::vector<MeshShape> shapes;
  for (int pipeline = 1; pipeline <= ranks; ++pipeline) {
    for (int shard = 1; pipeline * shard <= ranks; ++shard) {
      for (int context = 1; pipeline * shard * context <= ranks; ++context) {
        for (int tensor = 1; pipeline * shard * context * tensor <= ranks; ++tensor) {
          if (ranks % (pipeline * shard * context * tensor) != 0) continue;
          for (int expert = 1; expert * pipeline <= ranks; ++expert) {
            if (expert > 1 && !experts) break;
            if (ranks / pipeline % expert == 0) shapes.push_back({pipeline, shard, context, tensor, expert});
          }
        }
      }
    }
  }
  return shapes;
}

std::vector<std::string> ExpectedRefusal(const MeshSetting& setting, const runtime::ModelConfig& config,
                                         int ranks) {
  const MeshShape& shape = setting.shape;
  const int stages = shape.pipeline * (shape.pipeline > 1 ? kSchedules[setting.schedule].stages_per_rank : 1);
  if (stages > config.num_hidden_layers) {
    return {absl::StrCat("parallel.pipeline is ", shape.pipeline), absl::StrCat(stages, " stages"),
            absl::StrCat(config.num_hidden_layers, " blocks")};
  }
  if (shape.context > 1 && shape.context % HeadParts(setting) != 0) {
    return {"parallel.context_way", absl::StrCat("among ", HeadParts(setting), " ranks"),
            absl::StrCat("parallel.context, which is ", shape.context)};
  }
  const int64_t heads = config.num_attention_heads / shape.tensor;
  if (shape.context > 1 && heads % HeadParts(setting) != 0) {
    return {"parallel.context_way",
            absl::StrCat("parallel.tensor ", shape.tensor, " leaves ", heads, " heads")};
  }
  if (shape.context * shape.tensor > 1 && config.router.capacity_factor > 0) {
    return {"router.capacity_factor is 1", absl::StrCat("parallel.context ", shape.context),
            absl::StrCat("parallel.tensor ", shape.tensor)};
  }
  if (setting.sharding == "frontier") {  // levels of 2 ranks, the shard axis with its groups, and the stage
    const int shard = shape.shard * shape.context * shape.tensor, stage = ranks / shape.pipeline;
    if (stage % 2 != 0) return {"parallel.sharding", "over 2 ranks", absl::StrCat(stage, " rank")};
    if (shard % 2 != 0 && shard > 1)
      return {"parallel.sharding", "levels of ", absl::StrCat(shard), "divide"};
  }
  return {};
}

int TurnsForEveryRow() { return static_cast<int>(Shardings().size()); }

std::vector<MeshSetting> Turn(const std::string& model, int ranks, int turn) {
  static const std::vector<std::string> shardings = Shardings();
  std::vector<MeshSetting> settings;
  const std::vector<MeshShape> shapes = EveryShape(ranks, IsSparseModel(model));
  for (size_t i = 0; i < shapes.size(); ++i) {
    const size_t at = i + static_cast<size_t>(turn);
    settings.push_back({.model = model,
                        .shape = shapes[i],
                        .sharding = shardings[(at * 7) % shardings.size()],
                        .context = (at * 5 + i / 3) % std::size(kContexts),
                        .schedule = (at * 4 + i / 2) % std::size(kSchedules),
                        .recompute = (at + i / 4) % 3 == 1,
                        .split = (at + i / 6) % 2 == 0});
  }
  return settings;
}

std::vector<MeshSetting> Covering(const std::vector<MeshSetting>& pool, int ranks) {
  PairNumbers numbers;
  std::vector<std::vector<size_t>> pairs;
  for (const MeshSetting& setting : pool) pairs.push_back(numbers.Of(setting, ranks));
  std::vector<bool> covered(numbers.size());
  std::vector<MeshSetting> chosen;
  for (;;) {  // greedily: whichever brings most that is new
    size_t best = 0, most = 0;
    for (size_t i = 0; i < pool.size(); ++i) {
      const auto news = static_cast<size_t>(
          std::count_if(pairs[i].begin(), pairs[i].end(), [&](size_t pair) { return !covered[pair]; }));
      if (news > most) best = i, most = news;
    }
    if (most == 0) return chosen;
    for (const size_t pair : pairs[best]) covered[pair] = true;
    chosen.push_back(pool[best]);
  }
}

}  // namespace cohort::parallel
