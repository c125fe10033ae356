// Small tokenizer.json files for tests, written into a folder of their own.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "gtest/gtest.h"
#include "runtime/tokenizer/tokenizer.h"

namespace cohort::runtime {

// A folder that lasts as long as the object.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cohort-test-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string Path(const std::string& name) const { return (path_ / name).string(); }
  std::string Write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << text;
    return Path(name);
  }

 private:
  std::filesystem::path path_;
};

// A tokenizer of single characters and the merges given; tests add components.
inline nlohmann::json CharTokenizer(const std::vector<std::string>& characters,
                                    const std::vector<std::pair<std::string, std::string>>& merges = {}) {
  nlohmann::json root = {
      {"model", {{"type", "BPE"}, {"vocab", nlohmann::json::object()}, {"merges", nlohmann::json::array()}}}};
  nlohmann::json& model = root["model"];
  int id = 0;
  for (const std::string& character : characters) model["vocab"][character] = id++;
  for (const auto& [left, right] : merges) {
    model["merges"].push_back(left + " " + right);
    model["vocab"][left + right] = id++;
  }
  return root;
}

inline absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadJson(const nlohmann::json& root) {
  ScratchFolder folder;
  return Tokenizer::Load(folder.Write("tokenizer.json", root.dump()));
}

// The tokens that a text becomes, as the file spells them.
inline std::vector<std::string> Tokens(const Tokenizer& tokenizer, const std::string& text) {
  const auto ids = tokenizer.Encode(text, false);
  EXPECT_TRUE(ids.ok()) << ids.status();
  std::vector<std::string> tokens;
  if (ids.ok()) {
    for (const int32_t id : *ids) tokens.push_back(tokenizer.TokenOf(id));
  }
  return tokens;
}

// The folder of published models and tokenizers, or nullptr.
inline const char* TestData() { return std::getenv("COHORT_TEST_DATA"); }

}  // namespace cohort::runtime
