#include "runtime/data/token_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "runtime/data/policy.h"
#include "runtime/file.h"
#include "runtime/tokenizer/file_hash.h"
#include "runtime/tokenizer/json_fields.h"

namespace cohort::runtime {
namespace {

absl::Status WriteAll(int fd, const std::string& path, const char* data, size_t size, int64_t offset) {
  while (size > 0) {
    const ssize_t written = ::pwrite(fd, data, size, offset);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return ErrnoStatus(written < 0 ? errno : EIO, "write", path);
    data += written;
    size -= static_cast<size_t>(written);
    offset += written;
  }
  return absl::OkStatus();
}

absl::StatusOr<int> OpenNew(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "create", path);
  return fd;
}

absl::Status SyncAndClose(int fd, const std::string& path) {
  absl::Status status;
  if (::fsync(fd) != 0) status = ErrnoStatus(errno, "sync", path);
  if (::close(fd) != 0 && status.ok()) status = ErrnoStatus(errno, "close", path);
  return status;
}

}  // namespace

// A header and items, written through a buffer.
class SplitWriter::ItemFile {
 public:
  static absl::StatusOr<std::unique_ptr<ItemFile>> Create(std::string path, int64_t item_bytes) {
    COHORT_ASSIGN_OR_RETURN(const int fd, OpenNew(path));
    std::unique_ptr<ItemFile> file(new ItemFile);
    file->path_ = std::move(path);
    file->fd_ = fd;
    file->item_bytes_ = item_bytes;
    return file;
  }
  ~ItemFile() {
    if (fd_ >= 0) ::close(fd_);
  }

  absl::Status Append(uint64_t item) {
    for (int64_t i = 0; i < item_bytes_; ++i) buffer_ += static_cast<char>(item >> (8 * i) & 0xFF);
    ++items_;
    return buffer_.size() < data_policy::kWriteBufferBytes ? absl::OkStatus() : Flush();
  }

  absl::Status Finish() {
    COHORT_RETURN_IF_ERROR(Flush());
    TokenFileHeader header = {};
    std::memcpy(header.magic, "COHORTTK", sizeof(header.magic));
    header.version = kTokenFileVersion;
    header.item_bytes = static_cast<uint32_t>(item_bytes_);
    header.items = static_cast<uint64_t>(items_);
    header.content_hash = hash_;
    COHORT_RETURN_IF_ERROR(WriteAll(fd_, path_, reinterpret_cast<const char*>(&header), sizeof(header), 0));
    return SyncAndClose(std::exchange(fd_, -1), path_);
  }

  int64_t items() const { return items_; }
  uint64_t hash() const { return hash_; }

 private:
  absl::Status Flush() {
    hash_ = HashBytes(buffer_, hash_);
    COHORT_RETURN_IF_ERROR(WriteAll(fd_, path_, buffer_.data(), buffer_.size(), offset_));
    offset_ += static_cast<int64_t>(buffer_.size());
    buffer_.clear();
    return absl::OkStatus();
  }

  std::string path_, buffer_;
  int fd_ = -1;
  int64_t item_bytes_ = 0, items_ = 0, offset_ = sizeof(TokenFileHeader);
  uint64_t hash_ = kHashStart;
};

SplitWriter::SplitWriter(std::string folder, int64_t vocab_size, int32_t eos_id, std::string tokenizer_hash,
                         int64_t tokens_per_shard)
    : folder_(std::move(folder)), tokens_per_shard_(tokens_per_shard), hash_(kHashStart) {
  index_.vocab_size = vocab_size;
  index_.token_bytes = vocab_size <= 0x10000 ? 2 : 4;
  index_.eos_id = eos_id;
  index_.tokenizer_hash = std::move(tokenizer_hash);
}
SplitWriter::~SplitWriter() = default;

absl::Status SplitWriter::AddDocument(absl::Span<const int32_t> tokens, int64_t text_bytes) {
  if (documents_ == nullptr) {
    COHORT_ASSIGN_OR_RETURN(documents_, ItemFile::Create(folder_ + "/documents.bin", 8));
  }
  COHORT_RETURN_IF_ERROR(documents_->Append(static_cast<uint64_t>(index_.tokens)));
  COHORT_RETURN_IF_ERROR(AppendTokens(tokens));
  COHORT_RETURN_IF_ERROR(AppendTokens({index_.eos_id}));
  ++index_.documents;
  index_.text_bytes += text_bytes;
  return absl::OkStatus();
}

absl::Status SplitWriter::AppendTokens(absl::Span<const int32_t> tokens) {
  for (const int32_t token : tokens) {
    COHORT_CHECK(token >= 0 && token < index_.vocab_size, "token %d of %ld", token, index_.vocab_size);
    if (shard_ == nullptr) {
      index_.shards.push_back({absl::StrFormat("tokens-%05d.bin", index_.shards.size()), 0});
      COHORT_ASSIGN_OR_RETURN(
          shard_, ItemFile::Create(folder_ + "/" + index_.shards.back().file, index_.token_bytes));
    }
    COHORT_RETURN_IF_ERROR(shard_->Append(static_cast<uint64_t>(token)));
    ++index_.tokens;
    if (shard_->items() == tokens_per_shard_) COHORT_RETURN_IF_ERROR(CloseShard());
  }
  return absl::OkStatus();
}

absl::Status SplitWriter::CloseShard() {
  COHORT_RETURN_IF_ERROR(shard_->Finish());
  index_.shards.back().tokens = shard_->items();
  const uint64_t shard_hash = shard_->hash();
  hash_ = HashBytes({reinterpret_cast<const char*>(&shard_hash), sizeof(shard_hash)}, hash_);
  shard_.reset();
  return absl::OkStatus();
}

absl::StatusOr<SplitIndex> SplitWriter::Finish() {
  COHORT_CHECK(documents_ != nullptr, "a split without documents");
  if (shard_ != nullptr) COHORT_RETURN_IF_ERROR(CloseShard());
  COHORT_RETURN_IF_ERROR(documents_->Finish());
  index_.content_hash = HashToText(hash_);
  COHORT_RETURN_IF_ERROR(index_.Write(folder_));
  return index_;
}

absl::Status SplitIndex::Write(const std::string& folder) const {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Shard& shard : shards) list.push_back({{"file", shard.file}, {"tokens", shard.tokens}});
  const nlohmann::ordered_json root = {{"format", "cohort-tokens"},
                                       {"version", kTokenFileVersion},
                                       {"tokens", tokens},
                                       {"documents", documents},
                                       {"text_bytes", text_bytes},
                                       {"vocab_size", vocab_size},
                                       {"token_bytes", token_bytes},
                                       {"eos_id", eos_id},
                                       {"tokenizer_hash", tokenizer_hash},
                                       {"content_hash", content_hash},
                                       {"shards", list}};
  const std::string text = root.dump(2) + "\n";
  const std::string path = folder + "/index.json";
  COHORT_ASSIGN_OR_RETURN(const int fd, OpenNew(path));
  const absl::Status written = WriteAll(fd, path, text.data(), text.size(), 0);
  const absl::Status closed = SyncAndClose(fd, path);
  return written.ok() ? closed : written;
}

absl::StatusOr<SplitIndex> SplitIndex::Read(const std::string& folder) {
  const std::string path = folder + "/index.json";
  COHORT_ASSIGN_OR_RETURN(const nlohmann::json root, ReadJsonFile(path));
  COHORT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(root, path));
  COHORT_ASSIGN_OR_RETURN(const std::string format, fields.String("format"));
  if (format != "cohort-tokens")
    return fields.Error(absl::StrCat("the format is \"", format, "\", not cohort-tokens"));
  COHORT_ASSIGN_OR_RETURN(const int64_t version, fields.Int("version", 0, UINT32_MAX));
  if (version != kTokenFileVersion) {
    return fields.Error(
        absl::StrCat("version ", version, " is not ", kTokenFileVersion, "; prepare the data again"));
  }
  SplitIndex index;
  constexpr int64_t kMax = int64_t{1} << 60;
  COHORT_ASSIGN_OR_RETURN(index.tokens, fields.Int("tokens", 1, kMax));
  COHORT_ASSIGN_OR_RETURN(index.documents, fields.Int("documents", 1, index.tokens));
  COHORT_ASSIGN_OR_RETURN(index.text_bytes, fields.Int("text_bytes", 0, kMax));
  COHORT_ASSIGN_OR_RETURN(index.vocab_size, fields.Int("vocab_size", 1, INT32_MAX));
  COHORT_ASSIGN_OR_RETURN(index.token_bytes, fields.Int("token_bytes", 2, 4));
  if (index.token_bytes == 3) return fields.Error("\"token_bytes\" must be 2 or 4");
  COHORT_ASSIGN_OR_RETURN(const int64_t eos_id, fields.Int("eos_id", 0, index.vocab_size - 1));
  index.eos_id = static_cast<int32_t>(eos_id);
  COHORT_ASSIGN_OR_RETURN(index.tokenizer_hash, fields.String("tokenizer_hash"));
  COHORT_ASSIGN_OR_RETURN(index.content_hash, fields.String("content_hash"));
  COHORT_ASSIGN_OR_RETURN(const nlohmann::json* shards, fields.Array("shards"));
  int64_t sum = 0;
  for (size_t i = 0; i < shards->size(); ++i) {
    COHORT_ASSIGN_OR_RETURN(const JsonFields entry,
                            JsonFields::Of((*shards)[i], absl::StrCat(path, ": shards[", i, "]")));
    Shard shard;
    COHORT_ASSIGN_OR_RETURN(shard.file, entry.String("file"));
    if (shard.file.empty() || shard.file.find('/') != std::string::npos) {
      return entry.Error("\"file\" must be a name in the same folder");
    }
    COHORT_ASSIGN_OR_RETURN(shard.tokens, entry.Int("tokens", 1, index.tokens));
    sum += shard.tokens;
    index.shards.push_back(std::move(shard));
  }
  if (sum != index.tokens) {
    return fields.Error(absl::StrCat("the shards have ", sum, " tokens, the split ", index.tokens));
  }
  return index;
}

}  // namespace cohort::runtime
