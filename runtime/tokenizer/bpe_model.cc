#include "runtime/tokenizer/bpe_model.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <shared_mutex>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "runtime/tokenizer/bpe_merge.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/policy.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;

// Words seen before and their ids. Full shards keep what they have: frequent words come early.
class WordCache {
 public:
  bool Find(absl::string_view word, std::vector<int32_t>* ids) {
    Shard& shard = ShardOf(word);
    std::shared_lock lock(shard.mutex);
    const auto found = shard.ids.find(word);
    if (found == shard.ids.end()) return false;
    ids->insert(ids->end(), found->second.begin(), found->second.end());
    return true;
  }

  void Add(absl::string_view word, const std::vector<int32_t>& ids) {
    if (word.size() > tokenizer_policy::kCacheMaxWordBytes) return;
    Shard& shard = ShardOf(word);
    std::unique_lock lock(shard.mutex);
    if (shard.ids.size() < tokenizer_policy::kCacheEntriesPerShard) shard.ids.emplace(word, ids);
  }

 private:
  struct Shard {
    std::shared_mutex mutex;
    absl::flat_hash_map<std::string, std::vector<int32_t>> ids;
  };
  Shard& ShardOf(absl::string_view word) {
    return shards_[absl::Hash<absl::string_view>()(word) % tokenizer_policy::kCacheShards];
  }
  std::array<Shard, tokenizer_policy::kCacheShards> shards_;
};

}  // namespace

struct BpeModel::State {
  std::string where;
  absl::flat_hash_map<std::string, int32_t> id_of;
  std::vector<std::string> token_of;
  MergeTable merges;
  std::array<int32_t, 256> byte_ids;  // of <0x00> to <0xFF>, -1 where absent
  int32_t unknown_id = -1;
  bool byte_fallback = false, fuse_unknown = false, ignore_merges = false;
  WordCache cache;

  absl::Status ReadVocabulary(const JsonFields& fields);
  absl::Status ReadMerges(const JsonFields& fields);
  void FirstSymbols(absl::string_view word, std::vector<int32_t>* symbols) const;
};

absl::Status BpeModel::State::ReadVocabulary(const JsonFields& fields) {
  const json* vocabulary = fields.Find("vocab");
  if (vocabulary == nullptr || !vocabulary->is_object()) return fields.Error("\"vocab\" must be an object");
  COHORT_ASSIGN_OR_RETURN(const JsonFields entries, JsonFields::Of(*vocabulary, where + ".vocab"));
  int64_t largest = -1;
  id_of.reserve(vocabulary->size());
  for (const auto& [token, unused] : vocabulary->items()) {
    COHORT_ASSIGN_OR_RETURN(const int64_t id,
                            entries.Int(token, 0, tokenizer_policy::kMaxVocabularySize - 1));
    id_of[token] = static_cast<int32_t>(id);
    largest = std::max(largest, id);
  }
  token_of.resize(static_cast<size_t>(largest + 1));
  std::vector<bool> used(token_of.size());
  for (const auto& [token, id] : id_of) {
    if (used[id]) {
      return entries.Error(absl::StrCat("the id ", id, " belongs to two tokens, \"",
                                        std::min(token_of[id], token), "\" and \"",
                                        std::max(token_of[id], token), "\""));
    }
    used[id] = true;
    token_of[id] = token;
  }
  return absl::OkStatus();
}

absl::Status BpeModel::State::ReadMerges(const JsonFields& fields) {
  COHORT_ASSIGN_OR_RETURN(const json* list, fields.Array("merges"));
  merges.Reserve(list->size());
  for (size_t rank = 0; rank < list->size(); ++rank) {
    const json& merge = (*list)[rank];
    const auto error = [&](absl::string_view message) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ".merges[", rank, "] ", merge.dump(), ": ", message));
    };
    absl::string_view left, right;
    if (merge.is_string()) {  // "a b"
      const absl::string_view both = merge.get_ref<const std::string&>();
      const size_t space = both.find(' ');
      if (space == absl::string_view::npos || both.find(' ', space + 1) != absl::string_view::npos) {
        return error("expected two tokens with one space between them");
      }
      left = both.substr(0, space);
      right = both.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    } else {
      return error("expected \"left right\" or [\"left\", \"right\"]");
    }
    std::array<int32_t, 3> ids;
    const std::string tokens[3] = {std::string(left), std::string(right), absl::StrCat(left, right)};
    for (int i = 0; i < 3; ++i) {
      const auto found = id_of.find(tokens[i]);
      if (found == id_of.end()) {
        return error(absl::StrCat("the token \"", tokens[i], "\" is not in the vocabulary"));
      }
      ids[i] = found->second;
    }
    merges.Add(ids[0], ids[1], {static_cast<int32_t>(rank), ids[2]});
  }
  return absl::OkStatus();
}

BpeModel::BpeModel() : state_(std::make_unique<State>()) {}
BpeModel::~BpeModel() = default;

absl::StatusOr<std::unique_ptr<BpeModel>> BpeModel::FromJson(const json* value, const std::string& where) {
  if (value == nullptr) return absl::InvalidArgumentError(absl::StrCat(where, " is missing"));
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(*value, where));
  // Files of before 2022 have no type where the model is BPE.
  COHORT_ASSIGN_OR_RETURN(const std::string type, fields.StringOr("type", "BPE"));
  if (type != "BPE")
    return fields.Error(absl::StrCat("model type \"", type, "\" is not supported, only BPE is"));
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    COHORT_ASSIGN_OR_RETURN(const std::string text, fields.StringOr(affix, ""));
    if (!text.empty()) return fields.Error(absl::StrCat("a ", affix, " (\"", text, "\") is not supported"));
  }
  std::unique_ptr<BpeModel> model(new BpeModel);
  State& state = *model->state_;
  state.where = where;
  COHORT_ASSIGN_OR_RETURN(state.byte_fallback, fields.BoolOr("byte_fallback", false));
  COHORT_ASSIGN_OR_RETURN(state.fuse_unknown, fields.BoolOr("fuse_unk", false));
  COHORT_ASSIGN_OR_RETURN(state.ignore_merges, fields.BoolOr("ignore_merges", false));
  COHORT_RETURN_IF_ERROR(state.ReadVocabulary(fields));
  COHORT_RETURN_IF_ERROR(state.ReadMerges(fields));
  if (fields.Find("unk_token") != nullptr) {
    COHORT_ASSIGN_OR_RETURN(const std::string unknown, fields.String("unk_token"));
    state.unknown_id = model->IdOf(unknown);
    if (state.unknown_id < 0) {
      return fields.Error(absl::StrCat("the unk_token \"", unknown, "\" is not in the vocabulary"));
    }
  }
  for (int byte = 0; byte < 256; ++byte)
    state.byte_ids[byte] = model->IdOf(absl::StrFormat("<0x%02X>", byte));
  return model;
}

// The characters' ids, before any merge.
void BpeModel::State::FirstSymbols(absl::string_view word, std::vector<int32_t>* symbols) const {
  bool last_unknown = false;  // the last symbol is the unknown token, which fuse_unk extends
  while (!word.empty()) {
    const absl::string_view character = word.substr(0, DecodeUtf8(word).bytes);
    word.remove_prefix(character.size());
    const auto found = id_of.find(character);
    if (found != id_of.end()) {
      symbols->push_back(found->second);
      last_unknown = false;
      continue;
    }
    const auto has_id = [&](char byte) { return byte_ids[static_cast<uint8_t>(byte)] >= 0; };
    if (byte_fallback && std::all_of(character.begin(), character.end(), has_id)) {
      for (const char byte : character) symbols->push_back(byte_ids[static_cast<uint8_t>(byte)]);
      last_unknown = false;
      continue;
    }
    if (unknown_id >= 0 && !(fuse_unknown && last_unknown)) symbols->push_back(unknown_id);
    last_unknown = last_unknown || unknown_id >= 0;
  }
}

void BpeModel::Encode(absl::string_view word, std::vector<int32_t>* ids) const {
  if (state_->ignore_merges) {
    const int32_t id = IdOf(word);
    if (id >= 0) {
      ids->push_back(id);
      return;
    }
  }
  if (state_->cache.Find(word, ids)) return;
  std::vector<int32_t> symbols;
  symbols.reserve(word.size());
  state_->FirstSymbols(word, &symbols);
  state_->merges.MergeAll(&symbols);
  state_->cache.Add(word, symbols);
  ids->insert(ids->end(), symbols.begin(), symbols.end());
}

int32_t BpeModel::IdOf(absl::string_view token) const {
  const auto found = state_->id_of.find(token);
  return found == state_->id_of.end() ? -1 : found->second;
}

int32_t BpeModel::size() const { return static_cast<int32_t>(state_->token_of.size()); }

const std::string& BpeModel::TokenOf(int32_t id) const {
  static const std::string empty;
  return id >= 0 && id < size() ? state_->token_of[id] : empty;
}

}  // namespace cohort::runtime
