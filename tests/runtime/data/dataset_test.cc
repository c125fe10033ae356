#include "runtime/data/dataset.h"

#include "gmock/gmock.h"
#include "tests/runtime/data/prepared_corpus.h"

namespace cohort::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class DatasetTest : public PreparedCorpusTest {
 protected:
  // Prepares two documents, in shards of ten tokens.
  void Prepare(const std::string& name = "data") {
    folder_.Write("a.txt", "The first document.");
    folder_.Write("b.txt", "And the second one.");
    PrepareOptions options = Options({"a.txt", "b.txt"});
    options.output_folder = folder_.Path(name);
    options.tokens_per_shard = 10;
    const auto summary = PrepareData(options);
    ASSERT_TRUE(summary.ok()) << summary.status();
    ASSERT_EQ(summary->train.shards.size(), 4u);
  }

  void ExpectRefused(const std::vector<std::string>& parts) {
    const auto dataset = TokenDataset::Open({folder_.Path("data")}, "train");
    ASSERT_FALSE(dataset.ok());
    for (const std::string& part : parts)
      EXPECT_THAT(std::string(dataset.status().message()), HasSubstr(part));
  }

  void Patch(const std::string& name, size_t offset, const std::string& bytes) {
    std::string content = ReadFile(folder_.Path(name));
    content.replace(offset, bytes.size(), bytes);
    folder_.Write(name, content);
  }
};

TEST_F(DatasetTest, ReadsAcrossShards) {
  Prepare();
  const auto dataset = Open();
  ASSERT_NE(dataset, nullptr);
  const auto documents = Documents(*dataset);
  EXPECT_THAT(documents, ::testing::ElementsAre("The first document.", "And the second one."));
  std::vector<int32_t> all(40);
  ASSERT_TRUE(dataset->Read(0, absl::MakeSpan(all)).ok());
  for (int64_t begin = 0; begin < 40; ++begin) {
    for (int64_t count = 0; begin + count <= 40; ++count) {
      std::vector<int32_t> part(static_cast<size_t>(count));
      ASSERT_TRUE(dataset->Read(begin, absl::MakeSpan(part)).ok());
      EXPECT_EQ(part, std::vector<int32_t>(all.begin() + begin, all.begin() + begin + count));
    }
  }
}

TEST_F(DatasetTest, SeveralFoldersAreOneSequence) {
  Prepare("data");
  Prepare("more");
  const std::vector<std::string> folders = {folder_.Path("data"), folder_.Path("more")};
  const auto both = TokenDataset::Open(folders, "train");
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ((*both)->num_tokens(), 80);
  EXPECT_EQ((*both)->num_documents(), 4);
  EXPECT_EQ((*both)->DocumentBegin(3), 60);
  EXPECT_EQ((*both)->text_bytes(), 76);
  EXPECT_NE((*both)->fingerprint(), Open()->fingerprint());
  EXPECT_EQ(Documents(**both)[2], "The first document.");
  // Not with another tokenizer.
  Patch("more/train/index.json", ReadFile(folder_.Path("more/train/index.json")).find("tokenizer_hash") + 18,
        "0000");
  EXPECT_THAT(std::string(TokenDataset::Open(folders, "train").status().message()),
              HasSubstr("another tokenizer"));
}

TEST_F(DatasetTest, LargeVocabulariesTakeFourBytes) {
  auto root = CharTokenizer({"a", "b"});
  root["added_tokens"] = {{{"id", 70000}, {"content", "<end>"}, {"special", true}}};
  folder_.Write("tokenizer/tokenizer.json", root.dump());
  folder_.Write("tokenizer/tokenizer_config.json", R"({"eos_token": "<end>"})");
  folder_.Write("a.txt", "abba");
  ASSERT_TRUE(PrepareData(Options({"a.txt"})).ok());
  const auto dataset = Open();
  std::vector<int32_t> tokens(5);
  ASSERT_TRUE(dataset->Read(0, absl::MakeSpan(tokens)).ok());
  EXPECT_THAT(tokens, ::testing::ElementsAre(0, 1, 1, 0, 70000));
  EXPECT_EQ(dataset->vocab_size(), 70001);
}

TEST_F(DatasetTest, TruncatedFiles) {
  Prepare();
  const std::string shard = folder_.Path("data/train/tokens-00001.bin");
  const auto whole = fs::file_size(shard);
  for (const uintmax_t size : {whole - 1, uintmax_t{64}, uintmax_t{63}, uintmax_t{0}}) {
    fs::resize_file(shard, size);
    ExpectRefused({"tokens-00001.bin", "prepare the data again"});
  }
  fs::remove(shard);
  ExpectRefused({"tokens-00001.bin"});
}

TEST_F(DatasetTest, LyingHeaders) {
  const std::string shard = "data/train/tokens-00002.bin";
  const auto patched = [&](size_t offset, const std::string& bytes, const std::string& part) {
    fs::remove_all(folder_.Path("data"));
    Prepare();
    Patch(shard, offset, bytes);
    ExpectRefused({"tokens-00002.bin", part});
  };
  patched(0, "X", "no file of tokens");
  patched(8, "\x63", "version 99");
  patched(12, "\x04", "items of 4 bytes");
  patched(16, "\xFF", "255 items");
  patched(23, "\x7F", "items");  // a count whose bytes overflow
}

TEST_F(DatasetTest, LyingIndex) {
  const auto patched = [&](const std::string& from, const std::string& to, const std::string& part) {
    fs::remove_all(folder_.Path("data"));
    Prepare();
    std::string index = ReadFile(folder_.Path("data/train/index.json"));
    index.replace(index.find(from), from.size(), to);
    folder_.Write("data/train/index.json", index);
    ExpectRefused({"data/train", part});
  };
  patched("\"tokens\": 40", "\"tokens\": 41", "the shards have 40 tokens");
  patched("\"tokens\": 40", "\"tokens\": \"x\"", "must be an integer");
  patched("\"documents\": 2", "\"documents\": 3", "documents.bin");
  patched("\"version\": 1", "\"version\": 2", "version 2");
  patched("tokens-00000.bin", "../../../etc/passwd", "name in the same folder");
  patched("\"eos_id\": 0", "\"eos_id\": 300", "eos_id");
  patched("{", "", "JSON");
  fs::remove_all(folder_.Path("data/train"));
  ExpectRefused({"no prepared data"});
}

TEST_F(DatasetTest, DamagedTokensAndOffsets) {
  Prepare();
  Patch("data/train/tokens-00000.bin", 64 + 2 * 3, "\xFF\xFF");
  const auto dataset = Open();
  std::vector<int32_t> tokens(10);
  const absl::Status status = dataset->Read(0, absl::MakeSpan(tokens));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokens-00000.bin"));
  Patch("data/train/documents.bin", 64 + 8, "\xFF");
  ExpectRefused({"documents.bin", "document 1"});
}

}  // namespace
}  // namespace cohort::runtime
