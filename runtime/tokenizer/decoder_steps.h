// The steps that decoders are made of.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "runtime/tokenizer/decoder.h"

namespace cohort::runtime {

using DecoderStepPtr = std::unique_ptr<DecoderStep>;

// Maps every piece alone; `index` counts the pieces.
DecoderStepPtr NewMapStep(std::function<std::string(std::string piece, int64_t index)> map);

// Gives `step` everything as one piece at the end. For steps that need all of a fused piece at once.
DecoderStepPtr NewBufferedStep(DecoderStepPtr step);

// Characters of the byte-level alphabet to bytes, and bytes to text, with U+FFFD for what is not UTF-8. Holds
// back the beginning of a character.
DecoderStepPtr NewByteLevelStep();

// Runs of pieces <0xXX> to text. As in Hugging Face's tokenizers, a run that is not valid UTF-8 as a whole
// becomes one U+FFFD a byte, so a run is held back until it ends.
DecoderStepPtr NewByteFallbackStep();

// Drops up to `count` of the character `content` from the start of a fused piece.
DecoderStepPtr NewStripStreamStep(std::string content, int64_t count);

std::string ReplaceAll(absl::string_view text, absl::string_view from, absl::string_view to);

}  // namespace cohort::runtime
