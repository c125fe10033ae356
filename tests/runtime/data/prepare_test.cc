#include "runtime/data/prepare.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <set>

#include "gmock/gmock.h"
#include "tests/runtime/data/prepared_corpus.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PrepareTest : public PreparedCorpusTest {
 protected:
  std::vector<std::string> PreparedDocuments(const PrepareOptions& options) {
    const auto summary = PrepareData(options);
    EXPECT_TRUE(summary.ok()) << summary.status();
    if (!summary.ok()) return {};
    const auto dataset = Open();
    EXPECT_EQ(dataset->num_tokens(), summary->train.tokens);
    return Documents(*dataset);
  }

  void ExpectRefused(const PrepareOptions& options, absl::StatusCode code,
                     const std::vector<std::string>& parts) {
    const auto summary = PrepareData(options);
    EXPECT_EQ(summary.status().code(), code) << summary.status();
    for (const std::string& part : parts)
      EXPECT_THAT(std::string(summary.status().message()), HasSubstr(part));
    EXPECT_FALSE(fs::exists(options.output_folder));
    ExpectNothingLeftOver();
  }

  void ExpectNothingLeftOver() {
    for (const auto& entry : fs::directory_iterator(folder_.Path(""))) {
      EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
    }
  }
};

TEST_F(PrepareTest, TextFilesAreDocuments) {
  folder_.Write("a.txt", "First file.\nTwo lines.\n");
  folder_.Write("b",
                "\xEF\xBB\xBF"
                "Zweite, \u00fc\u00df");
  const auto summary = PrepareData(Options({"a.txt", "b"}));
  ASSERT_TRUE(summary.ok()) << summary.status();
  const auto dataset = Open();
  EXPECT_THAT(Documents(*dataset), ElementsAre("First file.\nTwo lines.\n", "Zweite, \u00fc\u00df"));
  EXPECT_EQ(dataset->text_bytes(), 23 + 12);
  EXPECT_EQ(dataset->num_tokens(), 23 + 12 + 2);  // a token a byte, and an EOS a document
  EXPECT_EQ(dataset->vocab_size(), 257);
  EXPECT_EQ(summary->files, 2);
  EXPECT_FALSE(summary->validation.has_value());
  ExpectNothingLeftOver();
}

TEST_F(PrepareTest, SeparatorLinesMakeDocuments) {
  folder_.Write("fortunes", "one\nmore\n%\n\n%\r\ntwo\n%\n%\n three");
  PrepareOptions options = Options({"fortunes"});
  options.corpus.document_separator = "%";
  EXPECT_THAT(PreparedDocuments(options), ElementsAre("one\nmore\n", "two\n", " three"));
}

TEST_F(PrepareTest, JsonLines) {
  folder_.Write("a.jsonl", "{\"text\": \"\\u00fcber\\n\"}\n\n{\"id\": 2, \"text\": \"b\"}\n{\"text\": \"\"}");
  EXPECT_THAT(PreparedDocuments(Options({"a.jsonl"})), ElementsAre("\u00fc"
                                                                   "ber\n",
                                                                   "b"));
  folder_.Write("b.ndjson", "{\"body\": \"x\"}\n");
  PrepareOptions options = Options({"b.ndjson"});
  options.corpus.json_field = "body";
  options.overwrite = true;
  EXPECT_THAT(PreparedDocuments(options), ElementsAre("x"));
}

TEST_F(PrepareTest, Folders) {
  folder_.Write("in/b.txt", "b");
  folder_.Write("in/a/deep.txt", "deep");
  folder_.Write("in/c.jsonl", "{\"text\": \"c\"}");
  folder_.Write("in/.hidden", "hidden");
  folder_.Write("in/.git/config", "hidden");
  folder_.Write("in/index.dat", std::string("\0\1\2", 3));
  fs::create_symlink("b.txt", folder_.Path("in/aa.u8"));
  const auto summary = PrepareData(Options({"in"}));
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_THAT(Documents(*Open()), ElementsAre("deep", "b", "c"));
  EXPECT_THAT(summary->passed_over, ElementsAre(HasSubstr("index.dat")));
}

TEST_F(PrepareTest, InvalidUtf8) {
  folder_.Write("bad.txt", "fine\nalso fine\nnot \xFF fine\n");
  PrepareOptions options = Options({"bad.txt"});
  ExpectRefused(options, absl::StatusCode::kInvalidArgument, {"bad.txt:3:", "byte 19", "0xFF", "replace"});
  options.corpus.invalid_utf8 = InvalidUtf8::kReplace;
  EXPECT_THAT(PreparedDocuments(options), ElementsAre("fine\nalso fine\nnot \uFFFD fine\n"));

  folder_.Write("bad.jsonl", "{\"text\": \"ok\"}\n{\"text\": \"\xC3\"}\n");
  fs::remove_all(folder_.Path("data"));
  ExpectRefused(Options({"bad.jsonl"}), absl::StatusCode::kInvalidArgument, {"bad.jsonl:2:", "byte 25"});
}

TEST_F(PrepareTest, BadInput) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  ExpectRefused(Options({"absent"}), absl::StatusCode::kNotFound, {"absent"});
  folder_.Write("empty.txt", "");
  folder_.Write("blank.txt", " \n\n");
  ExpectRefused(Options({"empty.txt", "blank.txt"}), invalid, {"no text", "empty.txt"});
  fs::create_directory(folder_.Path("hollow"));
  ExpectRefused(Options({"hollow"}), invalid, {"no text files"});
  folder_.Write("broken.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"\n");
  ExpectRefused(Options({"broken.jsonl"}), invalid, {"broken.jsonl:2", "JSON object"});
  folder_.Write("field.jsonl", "{\"txt\": \"a\"}\n");
  ExpectRefused(Options({"field.jsonl"}), invalid, {"field.jsonl:1", "\"text\""});
  folder_.Write("number.jsonl", "{\"text\": 1}\n");
  ExpectRefused(Options({"number.jsonl"}), invalid, {"number.jsonl:1", "\"text\""});

  folder_.Write("tiny.txt", "a");
  PrepareOptions options = Options({"tiny.txt"});
  options.validation_fraction = 0.1;
  ExpectRefused(options, invalid, {"too small"});
  options.validation_fraction = 1.5;
  ExpectRefused(options, invalid, {"1.5"});
  options = Options({"tiny.txt"});
  folder_.Write("noeos/tokenizer.json", CharTokenizer({"a"}).dump());
  options.tokenizer_json = folder_.Path("noeos/tokenizer.json");
  ExpectRefused(options, invalid, {"no EOS token"});
  options.tokenizer_json = folder_.Path("nowhere.json");
  ExpectRefused(options, absl::StatusCode::kNotFound, {"nowhere.json"});
}

TEST_F(PrepareTest, ExistingFoldersAreKeptUnlessTold) {
  folder_.Write("a.txt", "old");
  ASSERT_TRUE(PrepareData(Options({"a.txt"})).ok());
  folder_.Write("a.txt", "new");
  EXPECT_EQ(PrepareData(Options({"a.txt"})).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Documents(*Open()), ElementsAre("old"));
  PrepareOptions options = Options({"a.txt"});
  options.overwrite = true;
  folder_.Write("a.txt", "\xFF");  // a failure leaves the old data
  EXPECT_FALSE(PrepareData(options).ok());
  EXPECT_THAT(Documents(*Open()), ElementsAre("old"));
  folder_.Write("a.txt", "new");
  EXPECT_TRUE(PrepareData(options).ok());
  EXPECT_THAT(Documents(*Open()), ElementsAre("new"));
  ExpectNothingLeftOver();
}

TEST_F(PrepareTest, ValidationIsTheTailOfFewDocuments) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "line " + std::to_string(i) + "\n";
  folder_.Write("book.txt", text);
  PrepareOptions options = Options({"book.txt"});
  options.validation_fraction = 0.1;
  ASSERT_TRUE(PrepareData(options).ok());
  const std::string train = Documents(*Open("train"))[0], validation = Documents(*Open("validation"))[0];
  EXPECT_EQ(train + validation, text);
  EXPECT_EQ(train.back(), '\n');
  EXPECT_NEAR(static_cast<double>(validation.size()), 0.1 * static_cast<double>(text.size()), 8);
  EXPECT_EQ(Open("validation")->text_bytes(), static_cast<int64_t>(validation.size()));
}

TEST_F(PrepareTest, ValidationIsWholeDocumentsOfMany) {
  std::string lines;
  for (int i = 0; i < 250; ++i) lines += "{\"text\": \"document " + std::to_string(i) + "\"}\n";
  folder_.Write("many.jsonl", lines);
  PrepareOptions options = Options({"many.jsonl"});
  options.validation_fraction = 0.1;
  options.threads = 3;
  int reports = 0;
  options.progress = [&](const PrepareProgress& progress) {
    ++reports;
    EXPECT_EQ(progress.total_documents, 250);
    EXPECT_LE(progress.text_bytes, progress.total_text_bytes);
  };
  ASSERT_TRUE(PrepareData(options).ok());
  EXPECT_GE(reports, 2);
  const auto train = Documents(*Open("train")), validation = Documents(*Open("validation"));
  EXPECT_EQ(validation.size(), 25u);
  std::set<std::string> all(train.begin(), train.end());
  all.insert(validation.begin(), validation.end());
  EXPECT_EQ(all.size(), 250u);
  // The same seed holds out the same documents, with any number of threads.
  const std::string before = Open("validation")->fingerprint();
  options.overwrite = true;
  options.threads = 1;
  ASSERT_TRUE(PrepareData(options).ok());
  EXPECT_EQ(Open("validation")->fingerprint(), before);
  options.seed = 1;
  ASSERT_TRUE(PrepareData(options).ok());
  EXPECT_NE(Open("validation")->fingerprint(), before);
}

// A limit on the size of files stands for a full disk: the write fails in the same place.
TEST_F(PrepareTest, FullDiskLeavesNothing) {
  folder_.Write("a.txt", std::string(200'000, 'x'));
  const PrepareOptions options = Options({"a.txt"});
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {100'000, 100'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const auto summary = PrepareData(options);
    const bool expected =
        summary.status().code() == absl::StatusCode::kResourceExhausted &&
        std::string(summary.status().message()).find("tokens-00000.bin") != std::string::npos;
    ::_exit(expected ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_FALSE(fs::exists(folder_.Path("data")));
  ExpectNothingLeftOver();
}

}  // namespace
}  // namespace cohort::runtime
