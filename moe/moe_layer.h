// The mixture-of-experts feed-forward of a decoder block.
#pragma once

#include <memory>

#include "moe/expert_group.h"
#include "runtime/model/feed_forward.h"

namespace cohort::moe {

// Makes the feed-forward of sparse blocks, with their experts divided over `ranks`. Every rank of the group
// must make the same calls in the same order, with batches of its own, which may be empty. The factory
// answers INVALID_ARGUMENT where the experts do not divide over the ranks or the config names no known gate.
runtime::FeedForwardFactory MakeMoeFactory(std::shared_ptr<const ExpertGroup> ranks);

}  // namespace cohort::moe
