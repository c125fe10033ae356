// Small tokenizer.json files for tests, written into a folder of their own.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tests/support/temp_folder.h"

namespace cohort::runtime {

// A tokenizer of single characters and the merges given; tests add components.
inline nlohmann::json CharTokenizer(const std::vector<std::string>& characters,
                                    const std::vector<std::pair<std::string, std::string>>& merges = {}) {
  nlohmann::json root = {
      {"model", {{"type", "BPE"}, {"vocab", nlohmann::json::object()}, {"merges", nlohmann::json::array()}}}};
  nlohmann::json& model = root["model"];
  int id = 0;
  for (const std::string& character : characters) model["vocab"][character] = id++;
  for (const auto& [left, right] : merges) {
    model["merges"].push_back(absl::StrCat(left, " ", right));
    model["vocab"][left + right] = id++;
  }
  return root;
}

inline absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadJson(const nlohmann::json& root) {
  TempFolder folder;
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

}  // namespace cohort::runtime
