// Bruck all-to-all (Bruck et al., 1997, section 3) for equal counts: ceil(log2 p) messages a rank. A block travels the
// distance to its destination bit by bit; in round k everyone hands on, as one message, all blocks whose distance
// has bit k. A block moves about log2(p)/2 times, so this is for small ones.
#include <bit>

#include "comm/algorithms/flow.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {
namespace {

// Adds copies of blocks, neighbours of both sides as one.
class Copies {
 public:
  Copies(Flow& flow, size_t count) : flow_(flow), count_(count) {}
  ~Copies() { Flush(); }
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  void Add(const Slice& source, const Slice& destination) {
    if (source.buffer == source_.buffer && source.offset == source_.offset + source_.count &&
        destination.buffer == destination_.buffer &&
        destination.offset == destination_.offset + destination_.count) {
      source_.count += count_;
      destination_.count += count_;
      return;
    }
    Flush();
    source_ = source;
    destination_ = destination;
  }

 private:
  void Flush() { flow_.Copy(source_, destination_); }

  Flow& flow_;
  size_t count_;
  Slice source_, destination_;
};

}  // namespace

Schedule BruckAllToAll(const Collective& c) {
  const size_t count = c.counts[0];
  Flow flow(count * c.size, count * c.size);
  const auto block = [&](const Slice& buffer, int index) { return buffer.Part(index * count, count); };
  const Slice input{Buffer::kInput, 0, count * c.size}, output{Buffer::kOutput, 0, count * c.size};
  // A block is known by how far it goes. Those with bit k are in `came[k]` after round k, in ascending order: block
  // d at index Index(d, k), a number without bit k.
  std::vector<Slice> came;
  const auto index = [](int distance, int k) {
    return (distance >> (k + 1)) << k | (distance & ((1 << k) - 1));
  };
  const auto at = [&](int distance) {  // where it is after the rounds so far
    const int moved = distance & ((1 << came.size()) - 1);
    if (moved == 0) return block(input, Modulo(c.rank + distance, c.size));
    const int k = std::bit_width(static_cast<unsigned>(moved)) - 1;
    return block(came[k], index(distance, k));
  };
  for (int k = 0; (1 << k) < c.size; ++k) {
    int number = 0;
    for (int distance = 1 << k; distance < c.size; ++distance) number += distance >> k & 1;
    const Slice out = flow.Scratch(number * count);
    {
      Copies copies(flow, count);
      for (int distance = 1 << k; distance < c.size; ++distance) {
        if (distance >> k & 1) copies.Add(at(distance), block(out, index(distance, k)));
      }
    }
    const Slice in = flow.Scratch(number * count);
    flow.Send(Modulo(c.rank + (1 << k), c.size), out);
    flow.Recv(Modulo(c.rank - (1 << k), c.size), in);
    came.push_back(in);
  }
  {
    Copies copies(flow, count);
    for (int distance = 0; distance < c.size; ++distance) {
      copies.Add(at(distance), block(output, Modulo(c.rank - distance, c.size)));
    }
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
