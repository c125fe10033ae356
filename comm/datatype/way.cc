#include "comm/datatype/way.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "comm/check.h"
#include "comm/datatype/policy.h"
#include "comm/transport/shm/policy.h"

namespace cohort::comm {
namespace {

using Clock = std::chrono::steady_clock;

// The shortest of a few times: what disturbs makes longer.
template <typename Run>
double Seconds(const Run& run) {
  double best = std::numeric_limits<double>::infinity();
  for (int turn = 0; turn < policy::kDatatypeMeasuredTurns; ++turn) {
    const auto begin = Clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return best;
}

// Whether all of it could be copied from this process's own memory as from another's.
bool CopyRuns(std::byte* from, size_t run, size_t stride, size_t num_runs, std::byte* to) {
  constexpr size_t kMostRuns = 1024;  // UIO_MAXIOV
  iovec runs[kMostRuns];
  for (size_t done = 0; done < num_runs;) {
    const size_t now = std::min(kMostRuns, num_runs - done);
    for (size_t i = 0; i < now; ++i) runs[i] = {from + (done + i) * stride, run};
    iovec into{to + done * run, now * run};
    if (process_vm_readv(getpid(), &into, 1, runs, now, 0) != static_cast<ssize_t>(now * run)) return false;
    done += now;
  }
  return true;
}

double Interpolated(const std::vector<RunPrice>& prices, size_t run, double RunPrice::*cost) {
  const auto above =
      std::find_if(prices.begin(), prices.end(), [&](const RunPrice& p) { return p.run >= run; });
  if (above == prices.end()) {
    return prices.back().*cost * static_cast<double>(run) / static_cast<double>(prices.back().run);
  }
  if (above == prices.begin()) return prices.front().*cost;
  const RunPrice& low = *(above - 1);
  const double part = static_cast<double>(run - low.run) / static_cast<double>(above->run - low.run);
  return low.*cost + part * ((*above).*cost - low.*cost);
}

}  // namespace

LayoutCost PriceLayout(const Datatype& layout, const LayoutPrices& prices) {
  COHORT_CHECK(!prices.runs.empty(), "layouts are priced without prices");
  LayoutCost cost;
  cost.packed = static_cast<double>(layout.bytes()) * prices.dense_seconds_per_byte;
  for (const StridedBlock& block : layout.blocks()) {
    const auto runs = static_cast<double>(block.num_runs());
    cost.packed += runs * Interpolated(prices.runs, block.run, &RunPrice::packed);
    cost.in_place += runs * Interpolated(prices.runs, block.run, &RunPrice::in_place);
  }
  return cost;
}

LayoutPrices MeasureLayoutPrices() {
  constexpr size_t kBytes = policy::kDatatypeMeasuredBytes;
  // Room for twice the runs, 64 bytes between them; written, so that no first use of a page is counted.
  std::vector<std::byte> strided(3 * kBytes + (128 << 10), std::byte{1}), dense(kBytes, std::byte{1});
  LayoutPrices prices;
  // What is packed goes through a ring of fragments: the receiver's copy out of it.
  std::vector<std::byte> ring(policy::kShmRingBytes, std::byte{1});
  const double whole = Seconds([&] {
    for (size_t at = 0; at < kBytes; at += policy::kShmFragmentBytes) {
      std::memcpy(dense.data() + at, ring.data() + at % ring.size(), policy::kShmFragmentBytes);
    }
  });
  prices.dense_seconds_per_byte = whole / static_cast<double>(kBytes);
  bool permitted = true;
  for (const size_t run : policy::kDatatypeMeasuredRuns) {
    // Apart by an odd number of cache lines, which is what rows with ghost cells are to the caches.
    const size_t stride = std::max<size_t>(2 * run, 64) + 64;
    const size_t num_runs = std::min(policy::kDatatypeMeasuredMostRuns, kBytes / run);
    const auto layout =
        Datatype::HVector(num_runs, run, static_cast<ptrdiff_t>(stride), Datatype::Element(DataType::kU8));
    COHORT_CHECK(layout.ok(), "a layout to measure: %s", layout.status().ToString().c_str());
    RunPrice& price = prices.runs.emplace_back();
    const auto count = static_cast<double>(num_runs);
    price.run = run;
    price.packed = Seconds([&] { layout->Pack(strided.data(), dense.data()); }) / count;
    price.in_place =
        Seconds([&] { permitted &= CopyRuns(strided.data(), run, stride, num_runs, dense.data()); }) / count;
    if (!permitted) price.in_place = std::numeric_limits<double>::infinity();
  }
  return prices;
}

const LayoutPrices& MachineLayoutPrices() {
  static const LayoutPrices prices = MeasureLayoutPrices();
  return prices;
}

}  // namespace cohort::comm
