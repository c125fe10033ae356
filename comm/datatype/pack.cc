// The levels outside of the two innermost ones (runs.h), by counting; parts by cutting levels.
#include "comm/datatype/pack.h"

#include <cstring>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "comm/datatype/policy.h"
#include "comm/datatype/runs.h"

namespace cohort::comm {
namespace {

using Levels = absl::Span<const StrideLevel>;

size_t Product(Levels levels) {
  size_t turns = 1;
  for (const StrideLevel& level : levels) turns *= level.count;
  return turns;
}

template <bool pack>
void MoveWhole(Levels levels, size_t run, std::byte* strided, std::byte* dense) {
  const size_t depth = levels.size();
  const StrideLevel once;
  const StrideLevel& inner = depth > 0 ? levels[depth - 1] : once;
  const StrideLevel& outer = depth > 1 ? levels[depth - 2] : once;
  const MoveRuns move = ChooseMove(pack, run, Product(levels));
  const size_t step = outer.count * inner.count * run;
  const size_t rest = depth > 2 ? depth - 2 : 0;
  size_t turn[policy::kDatatypeLevels] = {};
  for (;;) {
    move(outer, inner, run, strided, dense);
    dense += step;
    size_t level = rest;
    for (; level > 0; --level) {
      const StrideLevel& at = levels[level - 1];
      strided += at.stride;
      if (++turn[level - 1] < at.count) break;
      strided -= at.stride * static_cast<ptrdiff_t>(at.count);
      turn[level - 1] = 0;
    }
    if (level == 0) return;
  }
}

// Bytes [from, to) of these levels: part of a turn of the outermost one, whole turns, part of a turn.
template <bool pack>
void MovePart(Levels levels, size_t run, size_t from, size_t to, std::byte* strided, std::byte* dense) {
  while (!levels.empty()) {
    const Levels inside = levels.subspan(1);
    const size_t turn_bytes = Product(inside) * run;
    const ptrdiff_t stride = levels[0].stride;
    const size_t first = from / turn_bytes, last = to / turn_bytes;
    const size_t head = from % turn_bytes, tail = to % turn_bytes;
    if (first == last || (first + 1 == last && tail == 0)) {  // within one turn
      strided += stride * static_cast<ptrdiff_t>(first);
      from -= first * turn_bytes;
      to -= first * turn_bytes;
      levels = inside;
      if (from == 0 && to == turn_bytes) return MoveWhole<pack>(levels, run, strided, dense);
      continue;
    }
    size_t whole = first;
    if (head > 0) {
      MovePart<pack>(inside, run, head, turn_bytes, strided + stride * static_cast<ptrdiff_t>(first), dense);
      dense += turn_bytes - head;
      ++whole;
    }
    if (whole < last) {
      absl::InlinedVector<StrideLevel, policy::kDatatypeLevels> turns(levels.begin(), levels.end());
      turns[0].count = last - whole;
      MoveWhole<pack>(turns, run, strided + stride * static_cast<ptrdiff_t>(whole), dense);
      dense += (last - whole) * turn_bytes;
    }
    if (tail > 0) {
      MovePart<pack>(inside, run, 0, tail, strided + stride * static_cast<ptrdiff_t>(last), dense);
    }
    return;
  }
  strided += from;
  pack ? std::memcpy(dense, strided, to - from) : std::memcpy(strided, dense, to - from);
}

template <bool pack>
void Move(const StridedBlock& block, size_t from, size_t to, std::byte* buffer, std::byte* dense) {
  std::byte* strided = buffer + block.offset;
  if (block.levels.empty()) return MovePart<pack>({}, block.run, from, to, strided, dense);
  if (from == 0 && to == block.bytes()) return MoveWhole<pack>(block.levels, block.run, strided, dense);
  MovePart<pack>(block.levels, block.run, from, to, strided, dense);
}

}  // namespace

void PackBlock(const StridedBlock& block, const std::byte* buffer, size_t from, size_t to,
               std::byte* packed) {
  Move<true>(block, from, to, const_cast<std::byte*>(buffer), packed);
}

void UnpackBlock(const StridedBlock& block, const std::byte* packed, size_t from, size_t to,
                 std::byte* buffer) {
  Move<false>(block, from, to, buffer, const_cast<std::byte*>(packed));
}

}  // namespace cohort::comm
