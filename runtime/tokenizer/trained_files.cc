#include "runtime/tokenizer/trained_files.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/tokenizer/trainer.h"

namespace cohort::runtime {
namespace {

using nlohmann::ordered_json;

ordered_json ByteLevel(bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

ordered_json TokenizerJson(const TrainedBpe& bpe) {
  ordered_json added = ordered_json::array();
  for (size_t id = 0; id < bpe.special_tokens.size(); ++id) {
    added.push_back({{"id", id},
                     {"content", bpe.special_tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  nlohmann::json vocabulary = nlohmann::json::object();
  for (size_t id = 0; id < bpe.tokens.size(); ++id) vocabulary[bpe.tokens[id]] = id;
  nlohmann::json merges = nlohmann::json::array();
  for (const auto& [left, right] : bpe.merges)
    merges.push_back(absl::StrCat(bpe.tokens[left], " ", bpe.tokens[right]));
  const ordered_json split = {{"type", "Split"},
                              {"pattern", {{"Regex", kTrainerSplitPattern}}},
                              {"behavior", "Isolated"},
                              {"invert", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Sequence"}, {"pretokenizers", ordered_json::array({split, ByteLevel(false)})}}},
          {"post_processor", nullptr},
          {"decoder", ByteLevel(true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocabulary},
            {"merges", merges}}}};
}

ordered_json TokenizerConfigJson(const TrainedBpe& bpe) {
  ordered_json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"clean_up_tokenization_spaces", false}};
  if (!bpe.special_tokens.empty()) {
    config["bos_token"] = bpe.special_tokens[0];
    config["eos_token"] = bpe.special_tokens[0];
  }
  return config;
}

// Writes beside the file and renames.
absl::Status WriteFile(const std::filesystem::path& path, const std::string& text) {
  const std::string temporary = path.string() + ".tmp";
  std::ofstream file(temporary, std::ios::binary);
  file << text;
  file.close();
  std::error_code error;
  if (!file) {
    const std::string reason = std::strerror(errno);
    std::filesystem::remove(temporary, error);
    return absl::UnavailableError(absl::StrCat("cannot write ", temporary, ": ", reason));
  }
  std::filesystem::rename(temporary, path, error);
  if (error)
    return absl::UnavailableError(absl::StrCat("cannot write ", path.string(), ": ", error.message()));
  return absl::OkStatus();
}

}  // namespace

absl::Status TrainedBpe::Write(const std::string& folder) const {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    return absl::UnavailableError(absl::StrCat("cannot make the folder ", folder, ": ", error.message()));
  const std::filesystem::path path = folder;
  COHORT_RETURN_IF_ERROR(
      WriteFile(path / "tokenizer_config.json", TokenizerConfigJson(*this).dump(2) + "\n"));
  return WriteFile(path / "tokenizer.json", TokenizerJson(*this).dump(1) + "\n");
}

}  // namespace cohort::runtime
