#include "runtime/checkpoint/trainer_state.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/tokenizer/json_fields.h"

namespace cohort::runtime {
namespace {

constexpr int kFormatVersion = 1;
constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

}  // namespace

std::string ToJson(const SavedTrainerState& state) {
  const TrainerState& trainer = state.trainer;
  const nlohmann::ordered_json json = {
      {"version", kFormatVersion},
      {"step", trainer.step},
      {"tokens", trainer.tokens},
      {"seed", std::to_string(trainer.seed)},  // 64 bits, more than other JSON readers keep of a number
      {"global_batch", trainer.global_batch},
      {"sequence_length", trainer.sequence_length},
      {"data_fingerprint", trainer.data_fingerprint},
      {"seconds", trainer.seconds},
      {"optimizer_step", state.optimizer_step},
      {"world", state.world},
  };
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

absl::StatusOr<SavedTrainerState> ReadTrainerState(const std::string& path) {
  COHORT_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path));
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(json, path));
  COHORT_RETURN_IF_ERROR(fields.Int("version", kFormatVersion, kFormatVersion).status());
  SavedTrainerState state;
  COHORT_ASSIGN_OR_RETURN(state.trainer.step, fields.Int("step", 0, kMaxInt64));
  COHORT_ASSIGN_OR_RETURN(state.trainer.tokens, fields.Int("tokens", 0, kMaxInt64));
  COHORT_ASSIGN_OR_RETURN(const std::string seed, fields.String("seed"));
  if (!absl::SimpleAtoi(seed, &state.trainer.seed)) return fields.Error("\"seed\" is not a 64-bit number");
  COHORT_ASSIGN_OR_RETURN(state.trainer.global_batch, fields.Int("global_batch", 0, kMaxInt64));
  COHORT_ASSIGN_OR_RETURN(state.trainer.sequence_length, fields.Int("sequence_length", 0, kMaxInt64));
  COHORT_ASSIGN_OR_RETURN(state.trainer.data_fingerprint, fields.String("data_fingerprint"));
  const nlohmann::json* seconds = fields.Find("seconds");
  if (seconds == nullptr || !seconds->is_number()) return fields.Error("\"seconds\" is not a number");
  state.trainer.seconds = seconds->get<double>();
  COHORT_ASSIGN_OR_RETURN(state.optimizer_step, fields.Int("optimizer_step", 0, kMaxInt64));
  COHORT_ASSIGN_OR_RETURN(const int64_t world, fields.Int("world", 1, std::numeric_limits<int>::max()));
  state.world = static_cast<int>(world);
  return state;
}

}  // namespace cohort::runtime
