// The files of prepared tokens. A split is a folder with index.json, tokens-00000.bin ... and documents.bin.
//
// Binary files have a header of 64 bytes (little-endian) and then items: tokens of 2 or 4 bytes, or, in
// documents.bin, for each document the number of tokens before it as 8 bytes. In a split every document is
// followed by one EOS.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace cohort::runtime {

inline constexpr uint32_t kTokenFileVersion = 1;

struct TokenFileHeader {
  char magic[8];  // "COHORTTK"
  uint32_t version;
  uint32_t item_bytes;
  uint64_t items;
  uint64_t content_hash;  // of the items' bytes (runtime/tokenizer/file_hash.h)
  uint8_t reserved[32];   // zero
};
static_assert(sizeof(TokenFileHeader) == 64);

// What index.json says of a split.
struct SplitIndex {
  struct Shard {
    std::string file;
    int64_t tokens = 0;
  };
  int64_t tokens = 0;
  int64_t documents = 0;
  int64_t text_bytes = 0;  // UTF-8 bytes of the documents' text, without the EOS between them
  int64_t vocab_size = 0;
  int64_t token_bytes = 0;
  int32_t eos_id = 0;
  std::string tokenizer_hash;
  std::string content_hash;
  std::vector<Shard> shards;

  absl::Status Write(const std::string& folder) const;
  // NotFound, or InvalidArgument for what is malformed or contradicts itself.
  static absl::StatusOr<SplitIndex> Read(const std::string& folder);
};

// Writes a split's files into an existing folder, and syncs them. ResourceExhausted where the disk is full.
class SplitWriter {
 public:
  SplitWriter(std::string folder, int64_t vocab_size, int32_t eos_id, std::string tokenizer_hash,
              int64_t tokens_per_shard);
  ~SplitWriter();

  // Appends a document of `text_bytes` bytes, and EOS.
  absl::Status AddDocument(absl::Span<const int32_t> tokens, int64_t text_bytes);
  absl::StatusOr<SplitIndex> Finish();
  int64_t tokens() const { return index_.tokens; }

 private:
  class ItemFile;
  absl::Status AppendTokens(absl::Span<const int32_t> tokens);
  absl::Status CloseShard();

  std::string folder_;
  int64_t tokens_per_shard_;
  SplitIndex index_;
  uint64_t hash_;
  std::unique_ptr<ItemFile> shard_, documents_;
};

}  // namespace cohort::runtime
