#include "serving/step_codec.h"

#include <cstring>
#include <map>
#include <optional>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::serving {
namespace {

// Both directions walk over the fields in one function (Fields), so they cannot disagree.
class Writer {
 public:
  template <typename T>
  requires std::is_trivially_copyable_v<T>
  void operator()(T& value) { bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T)); }
  void operator()(std::string& text) {
    Size(text.size());
    bytes_ += text;
  }
  template <typename T>
  void operator()(std::vector<T>& values);
  template <typename T>
  void operator()(std::optional<T>& value);
  void operator()(std::map<int32_t, float>& values) {
    Size(values.size());
    for (auto [key, value] : values) (*this)(key), (*this)(value);
  }

  std::string Take() { return std::move(bytes_); }

 private:
  void Size(uint64_t size) { (*this)(size); }
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(const std::string& bytes) : bytes_(bytes) {}

  template <typename T>
  requires std::is_trivially_copyable_v<T>
  void operator()(T& value) {
    if (const char* data = Take(sizeof(T))) std::memcpy(&value, data, sizeof(T));
  }
  void operator()(std::string& text) {
    const uint64_t size = Size();
    if (const char* data = Take(size)) text.assign(data, size);
  }
  template <typename T>
  void operator()(std::vector<T>& values);
  template <typename T>
  void operator()(std::optional<T>& value);
  void operator()(std::map<int32_t, float>& values) {
    for (uint64_t left = Size(); left > 0 && ok_; --left) {
      int32_t key = 0;
      (*this)(key);
      (*this)(values[key]);
    }
  }

  bool Finished() const { return ok_ && at_ == bytes_.size(); }

 private:
  // Every element takes at least a byte, so a length beyond the end is wrong before anything is allocated.
  uint64_t Size() {
    uint64_t size = 0;
    (*this)(size);
    ok_ = ok_ && size <= bytes_.size() - at_;
    return ok_ ? size : 0;
  }
  const char* Take(uint64_t size) {
    ok_ = ok_ && size <= bytes_.size() - at_;
    if (!ok_) return nullptr;
    const char* data = bytes_.data() + at_;
    at_ += size;
    return data;
  }

  const std::string& bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

template <typename T>
constexpr bool kPlain = std::is_arithmetic_v<T>;

// Each function takes its struct apart whole, so a field added to one does not compile until it is sent too.

template <typename Stream>
void Fields(Stream& stream, SamplingParams& params) {
  auto& [temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, seed,
         logit_bias] = params;
  stream(temperature), stream(top_k), stream(top_p), stream(min_p);
  stream(repetition_penalty), stream(presence_penalty), stream(frequency_penalty);
  stream(seed), stream(logit_bias);
}

template <typename Stream>
void Fields(Stream& stream, WantedRow& wanted) {
  auto& [row, target, top_scores, params, prompt, output, banned, position, completion] = wanted;
  stream(row), stream(target), stream(top_scores);
  Fields(stream, params);
  stream(prompt), stream(output), stream(banned), stream(position), stream(completion);
}

template <typename Stream>
void Fields(Stream& stream, RankStep& step) {
  auto& [tokens, positions, slots, query_offsets, context_lengths, page_table, rows] = step;
  stream(tokens), stream(positions), stream(slots), stream(query_offsets);
  stream(context_lengths), stream(page_table), stream(rows);
}

template <typename Stream>
void Fields(Stream& stream, TokenScores& scores) {
  auto& [chosen, top] = scores;
  stream(chosen), stream(top);
}

template <typename Stream>
void Fields(Stream& stream, RowResult& result) {
  auto& [error, token, scores] = result;
  stream(error), stream(token), stream(scores);
}

template <typename Stream>
void Fields(Stream& stream, RankResult& result) {
  auto& [rows] = result;
  stream(rows);
}

template <typename Stream>
void Fields(Stream& stream, std::vector<int32_t>& values) {
  stream(values);
}

template <typename Stream, typename T>
void One(Stream& stream, T& value) {
  if constexpr (std::is_trivially_copyable_v<T>) {
    stream(value);
  } else {
    Fields(stream, value);
  }
}

template <typename T>
void Writer::operator()(std::vector<T>& values) {
  Size(values.size());
  if constexpr (kPlain<T>) {
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  } else {
    for (T& value : values) One(*this, value);
  }
}

template <typename T>
void Writer::operator()(std::optional<T>& value) {
  bool has = value.has_value();
  (*this)(has);
  if (has) One(*this, *value);
}

template <typename T>
void Reader::operator()(std::vector<T>& values) {
  const uint64_t size = Size();
  if constexpr (kPlain<T>) {
    const char* data = Take(size * sizeof(T));
    values.resize(data == nullptr ? 0 : size);
    if (data != nullptr && size > 0) std::memcpy(values.data(), data, size * sizeof(T));
  } else {
    values.clear();
    for (uint64_t i = 0; i < size && ok_; ++i) One(*this, values.emplace_back());
  }
}

template <typename T>
void Reader::operator()(std::optional<T>& value) {
  uint8_t has = 0;
  (*this)(has);
  value.reset();
  if (has != 0) One(*this, value.emplace());
}

// What a rank sends back: `error` empty and a result, or an error.
struct Answer {
  std::string error;
  RankResult result;
};

template <typename Stream>
void Fields(Stream& stream, Answer& answer) {
  auto& [error, result] = answer;
  stream(error);
  Fields(stream, result);
}

template <typename T>
std::string Encode(const T& value) {
  Writer writer;
  Fields(writer, const_cast<T&>(value));  // a Writer only reads
  return writer.Take();
}

template <typename T>
absl::StatusOr<T> Decode(const std::string& bytes, const char* what) {
  Reader reader(bytes);
  T value;
  Fields(reader, value);
  if (!reader.Finished())
    return absl::InternalError(absl::StrCat("a corrupt ", what, " came from another rank"));
  return value;
}

}  // namespace

std::string EncodeStep(const RankStep& step) { return Encode(step); }

std::string EncodeAnswer(const absl::StatusOr<RankResult>& answer) {
  if (answer.ok()) return Encode(Answer{{}, *answer});
  return Encode(Answer{answer.status().ToString(), {}});
}

absl::StatusOr<RankStep> DecodeStep(const std::string& bytes) { return Decode<RankStep>(bytes, "step"); }

absl::StatusOr<RankResult> DecodeAnswer(int rank, const std::string& bytes) {
  COHORT_ASSIGN_OR_RETURN(Answer answer, Decode<Answer>(bytes, "answer"));
  if (!answer.error.empty()) return absl::UnavailableError(absl::StrCat("rank ", rank, ": ", answer.error));
  return std::move(answer.result);
}

}  // namespace cohort::serving
