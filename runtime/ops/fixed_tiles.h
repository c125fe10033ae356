// Matrix products whose bits do not depend on the number of threads.
#pragma once

namespace cohort::runtime {

// While one with `on` lives, CPU matrix products are cut into tiles of a fixed size, each computed by one
// thread. A library that shares a product out may otherwise add up in another order on two threads than on
// one. Costs a few percent, and products with fewer tiles than threads leave threads idle. One thread;
// objects nest.
class FixedTiles {
 public:
  explicit FixedTiles(bool on);
  FixedTiles(const FixedTiles&) = delete;
  ~FixedTiles();
  static bool On();

 private:
  const bool before_;
};

}  // namespace cohort::runtime
