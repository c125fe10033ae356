#include "runtime/ops/fixed_tiles.h"

#include <atomic>

namespace cohort::runtime {
namespace {

std::atomic<bool> tiles_are_fixed{false};

}  // namespace

FixedTiles::FixedTiles(bool on) : before_(tiles_are_fixed.exchange(on || On())) {}
FixedTiles::~FixedTiles() { tiles_are_fixed.store(before_); }
bool FixedTiles::On() { return tiles_are_fixed.load(std::memory_order_relaxed); }

}  // namespace cohort::runtime
