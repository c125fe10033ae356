#include "runtime/tokenizer/trainer.h"

#include <algorithm>
#include <optional>
#include <queue>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "runtime/tokenizer/policy.h"
#include "runtime/tokenizer/regex.h"
#include "runtime/tokenizer/trained_files.h"
#include "runtime/tokenizer/unicode.h"

namespace cohort::runtime {
namespace {

using Pair = std::pair<int32_t, int32_t>;

// A distinct word: its symbols so far, and how often it is in the text.
struct Word {
  std::vector<int32_t> symbols;
  int64_t count;
};

// Pairs of adjacent symbols: how often each is in the text, and the words it was ever seen in.
struct PairStatistics {
  int64_t count = 0;
  std::vector<int32_t> words;
};

struct Candidate {
  int64_t count;
  Pair pair;
  bool operator<(const Candidate& other) const {  // std::priority_queue takes the largest first
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

// Incremental training: a merge changes the counts of the pairs around it only.
class Merger {
 public:
  explicit Merger(std::vector<Word> words) : words_(std::move(words)) {
    for (size_t w = 0; w < words_.size(); ++w) {
      const Word& word = words_[w];
      for (size_t i = 0; i + 1 < word.symbols.size(); ++i) {
        Change({word.symbols[i], word.symbols[i + 1]}, word.count, static_cast<int32_t>(w));
      }
    }
    for (const auto& [pair, statistics] : pairs_) heap_.push({statistics.count, pair});
  }

  // The most frequent pair, or nothing where none is frequent enough.
  std::optional<Pair> Best() {
    while (!heap_.empty()) {
      const Candidate top = heap_.top();
      heap_.pop();
      const auto found = pairs_.find(top.pair);
      if (found == pairs_.end()) continue;
      if (found->second.count != top.count) {  // outdated: back with the count it has now
        if (found->second.count > 0) heap_.push({found->second.count, top.pair});
        continue;
      }
      if (top.count < tokenizer_policy::kMinPairCount) return std::nullopt;
      return top.pair;
    }
    return std::nullopt;
  }

  // Makes the pair `id` everywhere.
  void Merge(Pair pair, int32_t id) {
    const auto found = pairs_.find(pair);
    COHORT_CHECK(found != pairs_.end(), "merging a pair that is not there");
    std::vector<int32_t> in_words = std::move(found->second.words);
    pairs_.erase(found);
    std::sort(in_words.begin(), in_words.end());
    in_words.erase(std::unique(in_words.begin(), in_words.end()), in_words.end());
    grown_.clear();
    for (const int32_t w : in_words) MergeInWord(w, pair, id);
    std::sort(grown_.begin(), grown_.end());
    grown_.erase(std::unique(grown_.begin(), grown_.end()), grown_.end());
    for (const Pair& grown : grown_) heap_.push({pairs_[grown].count, grown});
  }

 private:
  void Change(Pair pair, int64_t by, int32_t word) {
    PairStatistics& statistics = pairs_[pair];
    statistics.count += by;
    if (by > 0 && (statistics.words.empty() || statistics.words.back() != word))
      statistics.words.push_back(word);
  }

  void MergeInWord(int32_t w, Pair pair, int32_t id) {
    Word& word = words_[w];
    std::vector<int32_t>& s = word.symbols;
    size_t out = 0;
    for (size_t i = 0; i < s.size(); ++i) {
      if (i + 1 >= s.size() || s[i] != pair.first || s[i + 1] != pair.second) {
        s[out++] = s[i];
        continue;
      }
      // The neighbours lose their pairs with the two symbols and gain pairs with the merged one. Left of
      // here, merges are done already.
      if (out > 0) {
        Remove({s[out - 1], pair.first}, pair, word.count, w);
        Add({s[out - 1], id}, word.count, w);
      }
      if (i + 2 < s.size()) {
        Remove({pair.second, s[i + 2]}, pair, word.count, w);
        Add({id, s[i + 2]}, word.count, w);
      }
      s[out++] = id;
      ++i;
    }
    s.resize(out);
  }

  void Remove(Pair pair, Pair merged, int64_t count, int32_t w) {
    if (pair != merged) Change(pair, -count, w);
  }
  void Add(Pair pair, int64_t count, int32_t w) {
    Change(pair, count, w);
    grown_.push_back(pair);
  }

  std::vector<Word> words_;
  absl::flat_hash_map<Pair, PairStatistics> pairs_;
  std::priority_queue<Candidate> heap_;
  std::vector<Pair> grown_;  // by the merge under way
};

}  // namespace

struct BpeTrainer::State {
  BpeTrainerOptions options;
  std::vector<Regex> split;  // one
  absl::flat_hash_map<std::string, int64_t> word_counts;
};

BpeTrainer::BpeTrainer() : state_(std::make_unique<State>()) {}
BpeTrainer::~BpeTrainer() = default;

absl::StatusOr<std::unique_ptr<BpeTrainer>> BpeTrainer::Create(BpeTrainerOptions options) {
  std::vector<std::string> sorted = options.special_tokens;
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (sorted[i].empty() || (i > 0 && sorted[i] == sorted[i - 1])) {
      return absl::InvalidArgumentError(
          absl::StrCat("the special token \"", sorted[i], "\" is empty or there twice"));
    }
    if (CountChars(sorted[i]) < 2 || FindInvalidUtf8(sorted[i]) != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("the special token \"", sorted[i], "\" must be UTF-8 of two or more characters"));
    }
  }
  const auto least = static_cast<int64_t>(256 + options.special_tokens.size());
  if (options.vocab_size < least || options.vocab_size > tokenizer_policy::kMaxVocabularySize) {
    return absl::InvalidArgumentError(
        absl::StrCat("the vocabulary size ", options.vocab_size, " must be from ", least,
                     " (the bytes and the special tokens) to ", tokenizer_policy::kMaxVocabularySize));
  }
  std::unique_ptr<BpeTrainer> trainer(new BpeTrainer);
  COHORT_ASSIGN_OR_RETURN(Regex split, Regex::Compile(kTrainerSplitPattern, "the trainer"));
  trainer->state_->split.push_back(std::move(split));
  trainer->state_->options = std::move(options);
  return trainer;
}

absl::Status BpeTrainer::Feed(absl::string_view text) {
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("the text is not valid UTF-8 at byte ", invalid));
  }
  std::vector<TextRange> words;
  while (!text.empty()) {
    size_t end = text.size(),
           next = text.size();  // of the text before the first special token, and of that token
    for (const std::string& special : state_->options.special_tokens) {
      const size_t at = text.substr(0, end).find(special);
      if (at != absl::string_view::npos) end = at, next = at + special.size();
    }
    words.clear();
    COHORT_RETURN_IF_ERROR(state_->split[0].FindAll(text.substr(0, end), &words));
    for (const TextRange& word : words) ++state_->word_counts[text.substr(word.begin, word.end - word.begin)];
    text.remove_prefix(next);
  }
  return absl::OkStatus();
}

absl::StatusOr<TrainedBpe> BpeTrainer::Train() const {
  if (state_->word_counts.empty()) {
    return absl::FailedPreconditionError("there is no text to train a tokenizer on");
  }
  TrainedBpe result;
  result.special_tokens = state_->options.special_tokens;
  result.tokens = result.special_tokens;
  // Bytes in the order of their characters, as Hugging Face's trainer has them.
  std::vector<std::pair<std::string, int>> alphabet;
  for (int byte = 0; byte < 256; ++byte) alphabet.emplace_back(ByteLevelAlphabet()[byte], byte);
  std::sort(alphabet.begin(), alphabet.end());
  std::vector<int32_t> id_of_byte(256);
  for (const auto& [character, byte] : alphabet) {
    id_of_byte[byte] = static_cast<int32_t>(result.tokens.size());
    result.tokens.push_back(character);
  }
  // Two pairs can spell the same token (a bc, ab c), which then has one id and two merges.
  absl::flat_hash_map<std::string, int32_t> id_of_token;
  for (size_t id = 0; id < result.tokens.size(); ++id)
    id_of_token[result.tokens[id]] = static_cast<int32_t>(id);

  std::vector<Word> words;
  words.reserve(state_->word_counts.size());
  for (const auto& [text, count] : state_->word_counts) {
    Word word{{}, count};
    for (const char byte : text) word.symbols.push_back(id_of_byte[static_cast<uint8_t>(byte)]);
    words.push_back(std::move(word));
  }
  Merger merger(std::move(words));
  while (static_cast<int64_t>(result.tokens.size()) < state_->options.vocab_size) {
    const std::optional<Pair> pair = merger.Best();
    if (!pair) break;
    std::string token = absl::StrCat(result.tokens[pair->first], result.tokens[pair->second]);
    const auto [entry, is_new] = id_of_token.try_emplace(token, static_cast<int32_t>(result.tokens.size()));
    if (is_new) result.tokens.push_back(std::move(token));
    result.merges.push_back(*pair);
    merger.Merge(*pair, entry->second);
  }
  return result;
}

}  // namespace cohort::runtime
