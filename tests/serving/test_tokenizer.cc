#include "tests/serving/test_tokenizer.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/support/temp_folder.h"

namespace cohort::serving {
namespace {

// GPT-2's printable stand-in for a byte: itself where printable, else the next free one from U+0100 on.
std::string ByteSymbols() {
  std::string entries;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    absl::StrAppend(&entries, absl::StrFormat("\"\\u%04x\": %d, ", printable ? byte : next++, byte));
  }
  return entries;
}

std::string TokenizerJson(bool bos) {
  const std::string special =
      R"({"id": %d, "content": "%s", "single_word": false, "lstrip": false, "rstrip": false,
                                  "normalized": false, "special": true})";
  const std::string post = bos ? R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}})"
                               : "null";
  return absl::StrCat(
      R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [)",
      absl::StrFormat(*absl::ParsedFormat<'d', 's'>::New(special), 256, "<s>"), ",",
      absl::StrFormat(*absl::ParsedFormat<'d', 's'>::New(special), 257, "</s>"),
      R"(], "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
      "trim_offsets": true, "use_regex": false}, "post_processor": )",
      post,
      R"(, "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "dropout": null, "unk_token": null,
      "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
      "vocab": {)",
      ByteSymbols(), R"("<s>": 256, "</s>": 257}, "merges": []}})");
}

}  // namespace

std::shared_ptr<const runtime::Tokenizer> ByteTokenizer(bool bos) {
  const TempFolder folder;
  folder.Write("tokenizer_config.json",
               bos ? R"({"bos_token": "<s>", "eos_token": "</s>"})" : R"({"eos_token": "</s>"})");
  auto tokenizer = runtime::Tokenizer::Load(folder.Write("tokenizer.json", TokenizerJson(bos)));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

}  // namespace cohort::serving
