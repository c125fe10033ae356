#include "runtime/tokenizer/tokenizer.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "runtime/tokenizer/added_tokens.h"
#include "runtime/tokenizer/bpe_model.h"
#include "runtime/tokenizer/decoder.h"
#include "runtime/tokenizer/file_hash.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/normalizer.h"
#include "runtime/tokenizer/post_processor.h"
#include "runtime/tokenizer/pre_tokenizer.h"
#include "runtime/tokenizer/special_ids.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {

struct Tokenizer::State {
  std::string path, hash;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<BpeModel> model;
  AddedTokens added;
  PostProcessor post_processor;
  TokenDecoder decoder;
  SpecialIds special_ids;

  const std::string& TokenOf(int32_t id) const {
    const AddedToken* token = added.Find(id);
    return token != nullptr ? token->content : model->TokenOf(id);
  }
  std::optional<int32_t> IdOf(absl::string_view token) const {
    const AddedToken* found = added.Find(token);
    const int32_t id = found != nullptr ? found->id : model->IdOf(token);
    return id < 0 ? std::nullopt : std::optional<int32_t>(id);
  }
  bool IsSpecial(int32_t id) const {
    const AddedToken* token = added.Find(id);
    return token != nullptr && token->special;
  }
};

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Load(const std::string& path) {
  COHORT_ASSIGN_OR_RETURN(const nlohmann::json root, ReadJsonFile(path));
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(root, path));
  const auto place = [&](const char* component) { return absl::StrCat(path, ": ", component); };
  const auto find = [&](const char* component) { return fields.Find(component); };
  auto state = std::make_unique<State>();
  state->path = path;
  COHORT_ASSIGN_OR_RETURN(state->hash, HashFile(path));
  COHORT_ASSIGN_OR_RETURN(state->model, BpeModel::FromJson(find("model"), place("model")));
  COHORT_ASSIGN_OR_RETURN(state->normalizer, Normalizer::FromJson(find("normalizer"), place("normalizer")));
  COHORT_ASSIGN_OR_RETURN(state->pre_tokenizer,
                          PreTokenizer::FromJson(find("pre_tokenizer"), place("pre_tokenizer")));
  COHORT_ASSIGN_OR_RETURN(state->added, AddedTokens::FromJson(find("added_tokens"), place("added_tokens"),
                                                              *state->model, state->normalizer));
  const auto is_token = [&](int64_t id) {
    return id >= 0 && id <= INT32_MAX && !state->TokenOf(static_cast<int32_t>(id)).empty();
  };
  COHORT_ASSIGN_OR_RETURN(state->post_processor,
                          PostProcessor::FromJson(find("post_processor"), place("post_processor"), is_token));
  COHORT_ASSIGN_OR_RETURN(state->decoder, TokenDecoder::FromJson(find("decoder"), place("decoder")));
  COHORT_ASSIGN_OR_RETURN(state->special_ids,
                          ReadSpecialIds(std::filesystem::path(path).parent_path().string(),
                                         [&](absl::string_view token) { return state->IdOf(token); }));
  if (!state->special_ids.bos && !state->post_processor.prefix.empty()) {
    state->special_ids.bos = state->post_processor.prefix.front();
  }
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(state)));
}

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text,
                                                       bool add_special_tokens) const {
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrFormat("the text is not valid UTF-8 at byte %d (0x%02X)",
                                                      invalid, static_cast<uint8_t>(text[invalid])));
  }
  std::vector<int32_t> ids;
  const PostProcessor& around = state_->post_processor;
  if (add_special_tokens) ids = around.prefix;
  COHORT_ASSIGN_OR_RETURN(std::vector<TextOrToken> pieces, state_->added.Split(text, state_->normalizer));
  for (TextOrToken& piece : pieces) {
    if (piece.id >= 0) {
      ids.push_back(piece.id);
      continue;
    }
    COHORT_ASSIGN_OR_RETURN(const PreTokenized words,
                            state_->pre_tokenizer.Split(std::move(piece.text), piece.at_start));
    for (const PreTokenized::Word& word : words.words) {
      state_->model->Encode(absl::string_view(words.text).substr(word.begin, word.end - word.begin), &ids);
    }
  }
  if (add_special_tokens) ids.insert(ids.end(), around.suffix.begin(), around.suffix.end());
  return ids;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const {
  StreamDecoder stream(shared_from_this(), skip_special_tokens);
  std::string text;
  for (const int32_t id : ids) text += stream.Push(id);
  text += stream.Finish();
  return text;
}

int32_t Tokenizer::vocab_size() const { return std::max(state_->model->size(), state_->added.size()); }
const std::string& Tokenizer::TokenOf(int32_t id) const { return state_->TokenOf(id); }
std::optional<int32_t> Tokenizer::IdOf(absl::string_view token) const { return state_->IdOf(token); }
bool Tokenizer::IsSpecial(int32_t id) const { return state_->IsSpecial(id); }
std::optional<int32_t> Tokenizer::bos_id() const { return state_->special_ids.bos; }
absl::Span<const int32_t> Tokenizer::eos_ids() const { return state_->special_ids.eos; }
const std::string& Tokenizer::hash() const { return state_->hash; }
const std::string& Tokenizer::path() const { return state_->path; }

struct StreamDecoder::State {
  std::shared_ptr<const Tokenizer> tokenizer;
  bool skip_special_tokens;
  TokenDecoder::Chain chain;
};

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens) {
  TokenDecoder::Chain chain = tokenizer->state_->decoder.NewChain();
  state_.reset(new State{std::move(tokenizer), skip_special_tokens, std::move(chain)});
}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::Push(int32_t id) {
  const Tokenizer::State& tokenizer = *state_->tokenizer->state_;
  const std::string& token = tokenizer.TokenOf(id);
  if (token.empty() || (state_->skip_special_tokens && tokenizer.IsSpecial(id))) return "";
  return state_->chain.Push(token);
}

std::string StreamDecoder::Finish() { return state_->chain.Finish(); }

}  // namespace cohort::runtime
