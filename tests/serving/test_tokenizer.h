// A tokenizer whose tokens are the 256 bytes (id = byte), <s> (256, begins a text) and </s> (257, ends one).
#pragma once

#include <memory>

#include "runtime/tokenizer/tokenizer.h"

namespace cohort::serving {

inline constexpr int32_t kBos = 256, kEos = 257, kByteVocabulary = 258;

// `bos`: whether texts begin with <s>.
std::shared_ptr<const runtime::Tokenizer> ByteTokenizer(bool bos = true);

}  // namespace cohort::serving
