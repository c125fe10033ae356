#include "runtime/data/dataset.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/data/item_file.h"
#include "runtime/data/token_files.h"
#include "runtime/tokenizer/file_hash.h"

namespace cohort::runtime {
namespace {

// A shard and the place of its first token in the dataset.
struct Shard {
  int64_t begin;
  int64_t token_bytes;
  ItemFileView file;
};

// The documents of one folder.
struct Documents {
  int64_t first_document;
  int64_t first_token;
  ItemFileView file;
};

template <typename Item>
int32_t CopyTokens(const ItemFileView& file, int64_t begin, absl::Span<int32_t> out) {
  uint32_t largest = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const uint32_t token = file.at<Item>(begin + static_cast<int64_t>(i));
    largest = std::max(largest, token);
    out[i] = static_cast<int32_t>(token);
  }
  return static_cast<int32_t>(std::min<uint32_t>(largest, INT32_MAX));
}

}  // namespace

struct TokenDataset::State {
  std::vector<Shard> shards;
  std::vector<Documents> documents;
  int64_t tokens = 0, document_count = 0, text_bytes = 0, vocab_size = 0;
  int32_t eos_id = 0;
  std::string tokenizer_hash, tokenizer_json, fingerprint;

  absl::Status AddFolder(const std::string& folder, const std::string& split);
};

absl::Status TokenDataset::State::AddFolder(const std::string& folder, const std::string& split) {
  const std::string path = (std::filesystem::path(folder) / split).string();
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) {
    return absl::NotFoundError(
        absl::StrCat("there is no prepared data in ", path, "; make it with cohort data prepare"));
  }
  COHORT_ASSIGN_OR_RETURN(const SplitIndex index, SplitIndex::Read(path));
  if (shards.empty()) {
    vocab_size = index.vocab_size;
    eos_id = index.eos_id;
    tokenizer_hash = index.tokenizer_hash;
    tokenizer_json = (std::filesystem::path(folder) / "tokenizer.json").string();
  } else if (index.tokenizer_hash != tokenizer_hash || index.eos_id != eos_id ||
             index.vocab_size != vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        " was prepared with another tokenizer than the folders before it; prepare all with the same one"));
  }
  COHORT_ASSIGN_OR_RETURN(ItemFileView offsets,
                          ItemFileView::Open(path + "/documents.bin", 8, index.documents));
  int64_t previous = -1;
  for (int64_t i = 0; i < index.documents; ++i) {
    const uint64_t offset = offsets.at<uint64_t>(i);
    if (offset >= static_cast<uint64_t>(index.tokens) || static_cast<int64_t>(offset) <= previous) {
      return absl::DataLossError(absl::StrCat(offsets.path(), ": document ", i, " begins at token ", offset,
                                              ", which is out of order; prepare the data again"));
    }
    previous = static_cast<int64_t>(offset);
  }
  documents.push_back({document_count, tokens, std::move(offsets)});
  for (const SplitIndex::Shard& shard : index.shards) {
    COHORT_ASSIGN_OR_RETURN(ItemFileView file, ItemFileView::Open(absl::StrCat(path, "/", shard.file),
                                                                  index.token_bytes, shard.tokens));
    shards.push_back({tokens, index.token_bytes, std::move(file)});
    tokens += shard.tokens;
  }
  document_count += index.documents;
  text_bytes += index.text_bytes;
  fingerprint =
      HashToText(HashBytes(absl::StrCat(fingerprint, ",", index.content_hash, ",", index.tokenizer_hash)));
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const TokenDataset>> TokenDataset::Open(absl::Span<const std::string> folders,
                                                                       const std::string& split) {
  if (folders.empty()) return absl::InvalidArgumentError("no folder of prepared data is given");
  auto state = std::make_unique<State>();
  for (const std::string& folder : folders) COHORT_RETURN_IF_ERROR(state->AddFolder(folder, split));
  return std::shared_ptr<const TokenDataset>(new TokenDataset(std::move(state)));
}

TokenDataset::TokenDataset(std::unique_ptr<const State> state) : state_(std::move(state)) {}
TokenDataset::~TokenDataset() = default;

int64_t TokenDataset::num_tokens() const { return state_->tokens; }
int64_t TokenDataset::num_documents() const { return state_->document_count; }
int64_t TokenDataset::text_bytes() const { return state_->text_bytes; }
int64_t TokenDataset::vocab_size() const { return state_->vocab_size; }
int32_t TokenDataset::eos_id() const { return state_->eos_id; }
const std::string& TokenDataset::tokenizer_hash() const { return state_->tokenizer_hash; }
const std::string& TokenDataset::tokenizer_json() const { return state_->tokenizer_json; }
const std::string& TokenDataset::fingerprint() const { return state_->fingerprint; }

int64_t TokenDataset::DocumentBegin(int64_t document) const {
  COHORT_CHECK(document >= 0 && document < state_->document_count, "document %ld",
               static_cast<long>(document));
  const auto after =
      std::upper_bound(state_->documents.begin(), state_->documents.end(), document,
                       [](int64_t d, const Documents& entry) { return d < entry.first_document; });
  const Documents& entry = *(after - 1);
  return entry.first_token + static_cast<int64_t>(entry.file.at<uint64_t>(document - entry.first_document));
}

absl::Status TokenDataset::Read(int64_t begin, absl::Span<int32_t> out) const {
  COHORT_CHECK(begin >= 0 && begin + static_cast<int64_t>(out.size()) <= state_->tokens,
               "tokens %ld + %zu of %ld", static_cast<long>(begin), out.size(),
               static_cast<long>(state_->tokens));
  auto shard = std::upper_bound(state_->shards.begin(), state_->shards.end(), begin,
                                [](int64_t token, const Shard& entry) { return token < entry.begin; });
  for (--shard; !out.empty(); ++shard) {
    const int64_t offset = begin - shard->begin;
    const size_t count = std::min(out.size(), static_cast<size_t>(shard->file.items() - offset));
    const int32_t largest = shard->token_bytes == 2
                                ? CopyTokens<uint16_t>(shard->file, offset, out.first(count))
                                : CopyTokens<uint32_t>(shard->file, offset, out.first(count));
    if (largest >= state_->vocab_size) {
      return absl::DataLossError(absl::StrCat(shard->file.path(), ": the token ", largest, " near token ",
                                              offset, " is outside of the vocabulary of ", state_->vocab_size,
                                              "; prepare the data again"));
    }
    begin += static_cast<int64_t>(count);
    out.remove_prefix(count);
  }
  return absl::OkStatus();
}

}  // namespace cohort::runtime
