#include "runtime/metrics/jsonl.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"

namespace cohort::runtime {
namespace {

using nlohmann::ordered_json;

std::string Dump(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

// Whether a line is whole and of a step up to `last`. Where it is of a step that was trained, that is `trained`.
bool Stays(absl::string_view line, int64_t last, int64_t& trained) {
  const nlohmann::json json =
      nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return false;
  const auto step = json.find("step");
  if (step == json.end() || !step->is_number_integer()) return true;
  if (step->get<int64_t>() > last) return false;
  if (json.contains("loss")) trained = step->get<int64_t>();
  return true;
}

// Rewrites the file, atomically, without the lines that do not stay. `trained`: the step of the last one that says a loss.
absl::Status DropAfter(const std::string& path, const std::string& text, int64_t last, int64_t& trained) {
  std::string kept;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (Stays(line, last, trained)) absl::StrAppend(&kept, line, "\n");
  }
  if (kept == text) return absl::OkStatus();
  const std::string next = path + ".partial";
  COHORT_RETURN_IF_ERROR(WriteFileDurably(next, kept));
  std::error_code error;
  std::filesystem::rename(next, path, error);
  if (error) return ErrnoStatus(error.value(), "replace", path);
  return absl::OkStatus();
}

}  // namespace

std::string ToJson(const StepMetrics& metrics) {
  ordered_json json = {{"step", metrics.step},           {"loss", metrics.loss},
                       {"tokens", metrics.tokens},       {"seconds", metrics.seconds},
                       {"grad_norm", metrics.grad_norm}, {"lr", metrics.lr}};
  if (!metrics.expert_load.empty()) {
    json["aux_loss"] = metrics.aux_loss;
    json["expert_load"] = metrics.expert_load;
    json["dropped"] = metrics.dropped;
  }
  return Dump(json);
}

std::string ToJson(const EvaluationMetrics& metrics) {
  return Dump({{"step", metrics.step},
               {"eval_loss", metrics.loss},
               {"bits_per_byte", metrics.bits_per_byte},
               {"eval_tokens", metrics.tokens}});
}

absl::StatusOr<JsonLinesWriter> JsonLinesWriter::Open(const std::string& path, int64_t resume_step) {
  bool torn = false;
  int64_t trained = 0;
  absl::StatusOr<std::string> text = ReadFile(path);
  if (text.ok()) {
    torn = !text->empty() && text->back() != '\n';
    if (resume_step >= 0) {
      COHORT_RETURN_IF_ERROR(DropAfter(path, *text, resume_step, trained));
      torn = false;
    }
  } else if (!absl::IsNotFound(text.status())) {
    return text.status();
  }
  COHORT_RETURN_IF_ERROR(MakeFolderOf(path));
  COHORT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Append(path));
  JsonLinesWriter writer(std::move(file));
  writer.torn_ = torn;
  writer.resumed_at_ = trained;
  return writer;
}

absl::Status JsonLinesWriter::Add(const std::string& json) {
  COHORT_RETURN_IF_ERROR(file_.WriteWhole(absl::StrCat(torn_ ? "\n" : "", json, "\n")));
  torn_ = false;
  return absl::OkStatus();
}

}  // namespace cohort::runtime
