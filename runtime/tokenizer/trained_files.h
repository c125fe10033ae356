// The split pattern of trained tokenizers; their files are written by TrainedBpe::Write.
#pragma once

namespace cohort::runtime {

// Llama 3's: contractions, words with at most one sign before them, up to three
// digits, signs, line ends, spaces.
inline constexpr char kTrainerSplitPattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace cohort::runtime
