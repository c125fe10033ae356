// Tokenizers in Hugging Face's tokenizer.json format: byte-level and SentencePiece-style BPE, as Llama 2 and
// 3, Mistral, GPT-2, Qwen and DeepSeek use them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace cohort::runtime {

// Immutable once loaded; every method is thread-safe.
class Tokenizer : public std::enable_shared_from_this<Tokenizer> {
 public:
  // Loads a tokenizer.json. Which tokens begin and end a text is read from tokenizer_config.json,
  // generation_config.json and config.json in the same folder where they exist. Truncation and padding
  // settings of the file are ignored. NotFound, or InvalidArgument that names the file, the component and
  // what is wrong with it.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(const std::string& tokenizer_json_path);
  ~Tokenizer();

  // The ids of a text. Added tokens such as <|endoftext|> are recognized wherever they stand in it. With
  // `add_special_tokens`, also what the file's post-processor puts around a text (Llama's BOS, for example).
  // InvalidArgument, naming the byte, where the text is not UTF-8.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text, bool add_special_tokens) const;

  // The text of ids; ids that no token has are left out. Always valid UTF-8: bytes
  // that are not become U+FFFD.
  std::string Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const;

  // One more than the largest id: the least number of rows an embedding needs.
  int32_t vocab_size() const;
  // The token of an id as the file spells it ("\u0120the"), empty where no token has the id.
  const std::string& TokenOf(int32_t id) const;
  // nullopt where no token is spelled so.
  std::optional<int32_t> IdOf(absl::string_view token) const;
  // Whether decoding with skip_special_tokens leaves the id out.
  bool IsSpecial(int32_t id) const;

  // The token that begins a text, and those that end one, the first of them being the one
  // to write after a document.
  std::optional<int32_t> bos_id() const;
  absl::Span<const int32_t> eos_ids() const;

  // A fingerprint of the tokenizer.json's bytes, as 16 hexadecimal digits.
  const std::string& hash() const;
  const std::string& path() const;

 private:
  friend class StreamDecoder;
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

// Decodes token by token. What Push and Finish return, concatenated, is Decode of all ids. Text that more
// tokens could change (an incomplete UTF-8 sequence, a run of <0xXX> tokens) is held back. Not thread-safe.
class StreamDecoder {
 public:
  StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special_tokens);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  std::string Push(int32_t id);
  // What is still held back; nothing may be pushed after it.
  std::string Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cohort::runtime
