// How a message that does not lie together leaves: packed, or read in place, run by run. Chosen by what both
// cost on this machine (Pearson et al., "TEMPI", HPDC 2021, section 5).
#pragma once

#include <cstddef>
#include <vector>

#include "comm/datatype/datatype.h"

namespace cohort::comm {

enum class LayoutWay : uint8_t {
  kPacked,   // by the vector loop, while the other side unpacks what came before
  kInPlace,  // by the system's copy between processes, which is told every run
};

// What a run costs, by its length: between the lengths measured in proportion, beyond them as the nearest one; above
// the longest by the byte. Seconds.
struct RunPrice {
  size_t run = 0;
  double packed = 0;    // packing it, or unpacking
  double in_place = 0;  // copying it between processes, as one of many
};

struct LayoutPrices {
  std::vector<RunPrice> runs;         // by length, ascending; at least one
  double dense_seconds_per_byte = 0;  // of what was packed: the other side's copy of it
};

struct LayoutCost {
  double packed = 0;
  double in_place = 0;
  LayoutWay way() const { return in_place < packed ? LayoutWay::kInPlace : LayoutWay::kPacked; }
};

// What it costs to move one such layout to or from dense bytes of another process, in seconds.
LayoutCost PriceLayout(const Datatype& layout, const LayoutPrices& prices);

// The prices of this machine, measured on this process's own memory: some milliseconds. Where the system does not
// permit the copy between processes, it costs infinitely much.
LayoutPrices MeasureLayoutPrices();
// The same, measured once a process, at the first call.
const LayoutPrices& MachineLayoutPrices();

}  // namespace cohort::comm
