#include "comm/datatype/datatype.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/datatype/pack.h"
#include "comm/datatype/policy.h"

namespace cohort::comm {
namespace {

// No layout reaches farther than this, so that sums of a few offsets cannot overflow.
constexpr ptrdiff_t kFar = PTRDIFF_MAX / 8;

absl::Status TooLarge(const char* what) {
  return absl::InvalidArgumentError(absl::StrFormat("a datatype's %s is too large for memory", what));
}

bool Far(ptrdiff_t offset) { return offset > kFar || offset < -kFar; }

// a * b where it is not farther than kFar.
bool Times(ptrdiff_t a, size_t b, ptrdiff_t* product) {
  return b <= static_cast<size_t>(kFar) && !__builtin_mul_overflow(a, static_cast<ptrdiff_t>(b), product) &&
         !Far(*product);
}

bool IsEmpty(const StridedBlock& block) {
  return block.run == 0 || std::any_of(block.levels.begin(), block.levels.end(),
                                       [](const StrideLevel& level) { return level.count == 0; });
}

// The first byte of a block, the one behind its last, and how many it has.
struct Reach {
  ptrdiff_t lower = 0, upper = 0;
  size_t bytes = 0;
};

// Blocks may come from another process: this is asked before anything is computed of them that could overflow.
absl::StatusOr<Reach> ReachOf(const StridedBlock& block) {
  if (block.run > static_cast<size_t>(kFar) || Far(block.offset)) return TooLarge("reach");
  auto bytes = static_cast<ptrdiff_t>(block.run);
  ptrdiff_t lower = block.offset, upper = block.offset + bytes;
  for (const StrideLevel& level : block.levels) {
    ptrdiff_t reach = 0;
    if (!Times(level.stride, level.count - 1, &reach) || !Times(bytes, level.count, &bytes)) {
      return TooLarge("reach");
    }
    (reach < 0 ? lower : upper) += reach;
    if (lower < -kFar || upper > kFar) return TooLarge("reach");
  }
  return Reach{lower, upper, static_cast<size_t>(bytes)};
}

void Canonicalize(StridedBlock* block) {
  std::vector<StrideLevel>& levels = block->levels;
  std::erase_if(levels, [](const StrideLevel& level) { return level.count == 1; });
  while (!levels.empty() && levels.back().stride == static_cast<ptrdiff_t>(block->run)) {
    block->run *= levels.back().count;
    levels.pop_back();
  }
  for (size_t i = levels.size(); i-- > 1;) {
    StrideLevel& outer = levels[i - 1];
    const StrideLevel& inner = levels[i];
    if (outer.stride != inner.stride * static_cast<ptrdiff_t>(inner.count)) continue;
    outer = {outer.count * inner.count, inner.stride};
    levels.erase(levels.begin() + static_cast<ptrdiff_t>(i));
  }
}

// Whether `next` goes on where `block` ends: as a longer run, or as further turns of its outermost level.
bool Join(StridedBlock* block, const StridedBlock& next) {
  if (block->levels.empty() && next.levels.empty() &&
      next.offset == block->offset + static_cast<ptrdiff_t>(block->run)) {
    block->run += next.run;
    return true;
  }
  if (block->run != next.run) return false;
  if (block->levels == next.levels && block->levels.size() < policy::kDatatypeLevels) {
    // Two of a kind: a level of two turns.
    block->levels.insert(block->levels.begin(), {2, next.offset - block->offset});
    return true;
  }
  if (block->levels.size() == next.levels.size() + 1 &&
      std::equal(next.levels.begin(), next.levels.end(), block->levels.begin() + 1)) {
    StrideLevel& outer = block->levels.front();
    if (next.offset != block->offset + outer.stride * static_cast<ptrdiff_t>(outer.count)) return false;
    ++outer.count;
    return true;
  }
  return false;
}

// Blocks that continue each other as one: those of a list of rows as planes, then planes as a box.
std::vector<StridedBlock> Joined(std::vector<StridedBlock> blocks) {
  for (size_t pass = 0; pass < policy::kDatatypeLevels; ++pass) {
    std::vector<StridedBlock> joined;
    for (StridedBlock& block : blocks) {
      if (!joined.empty() && Join(&joined.back(), block)) continue;
      joined.push_back(std::move(block));
    }
    for (StridedBlock& block : joined) Canonicalize(&block);
    if (joined.size() == blocks.size()) return joined;
    blocks = std::move(joined);
  }
  return blocks;
}

}  // namespace

size_t StridedBlock::num_runs() const {
  size_t runs = 1;
  for (const StrideLevel& level : levels) runs *= level.count;
  return runs;
}

absl::StatusOr<Datatype> Datatype::Make(std::vector<StridedBlock> blocks, ptrdiff_t extent) {
  Datatype type;
  type.extent_ = extent;
  if (Far(extent)) return TooLarge("extent");
  std::erase_if(blocks, IsEmpty);
  for (size_t i = 0; i < blocks.size(); ++i) {
    COHORT_ASSIGN_OR_RETURN(const Reach reach, ReachOf(blocks[i]));
    type.lower_ = i == 0 ? reach.lower : std::min(type.lower_, reach.lower);
    type.upper_ = i == 0 ? reach.upper : std::max(type.upper_, reach.upper);
    type.bytes_ += reach.bytes;
    if (type.bytes_ > static_cast<size_t>(kFar)) return TooLarge("size");
    Canonicalize(&blocks[i]);
    if (blocks[i].levels.size() > policy::kDatatypeLevels) {
      return absl::InvalidArgumentError(
          absl::StrFormat("a datatype of %d nested strides: at most %d are packed", blocks[i].levels.size(),
                          policy::kDatatypeLevels));
    }
  }
  type.blocks_ = Joined(std::move(blocks));
  size_t begin = 0;
  for (const StridedBlock& block : type.blocks_) {
    type.begins_.push_back(begin);
    begin += block.bytes();
    type.num_runs_ += block.num_runs();
  }
  return type;
}

Datatype Datatype::Element(DataType dtype) {
  auto type = Make({{0, SizeOf(dtype), {}}}, static_cast<ptrdiff_t>(SizeOf(dtype)));
  COHORT_CHECK(type.ok(), "an element of %s", Name(dtype));
  return *std::move(type);
}

absl::StatusOr<Datatype> Datatype::Contiguous(size_t count, const Datatype& inner) {
  return HVector(count, 1, inner.extent(), inner);
}

absl::StatusOr<Datatype> Datatype::Vector(size_t count, size_t length, ptrdiff_t stride,
                                          const Datatype& inner) {
  ptrdiff_t bytes = 0;
  if (__builtin_mul_overflow(stride, inner.extent(), &bytes)) return TooLarge("stride");
  return HVector(count, length, bytes, inner);
}

absl::StatusOr<Datatype> Datatype::HVector(size_t count, size_t length, ptrdiff_t stride_bytes,
                                           const Datatype& inner) {
  ptrdiff_t reach = 0, block_extent = 0;
  if (!Times(inner.extent(), length, &block_extent) || count > static_cast<size_t>(kFar) ||
      !Times(stride_bytes, count == 0 ? 0 : count - 1, &reach)) {
    return TooLarge("reach");
  }
  const ptrdiff_t extent = count == 0 ? 0 : std::max(reach, ptrdiff_t{0}) + block_extent;
  if (inner.blocks_.size() <= 1) {
    std::vector<StridedBlock> blocks = inner.blocks_;
    for (StridedBlock& block : blocks) {
      block.levels.insert(block.levels.begin(), {{count, stride_bytes}, {length, inner.extent()}});
    }
    return Make(std::move(blocks), extent);
  }
  // Several blocks in turn: no single nest of strides keeps their order.
  std::vector<StridedBlock> blocks;
  if (count > 0 && length > policy::kDatatypeBlocks / inner.blocks_.size() / count) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d x %d datatypes of %d blocks each are more than %d blocks", count, length,
                        inner.blocks_.size(), policy::kDatatypeBlocks));
  }
  for (size_t i = 0; i < count; ++i) {
    for (size_t j = 0; j < length; ++j) {
      for (StridedBlock block : inner.blocks_) {
        block.offset += static_cast<ptrdiff_t>(i) * stride_bytes + static_cast<ptrdiff_t>(j) * inner.extent();
        blocks.push_back(std::move(block));
      }
    }
  }
  return Make(std::move(blocks), extent);
}

absl::StatusOr<Datatype> Datatype::IndexedBlock(size_t length, absl::Span<const ptrdiff_t> displacements,
                                                const Datatype& inner) {
  std::vector<DatatypeMember> members;
  for (const ptrdiff_t displacement : displacements) {
    ptrdiff_t offset = 0;
    if (__builtin_mul_overflow(displacement, inner.extent(), &offset)) return TooLarge("reach");
    members.push_back({length, offset, inner});
  }
  return Struct(members);
}

absl::StatusOr<Datatype> Datatype::Subarray(absl::Span<const size_t> sizes, absl::Span<const size_t> subsizes,
                                            absl::Span<const size_t> starts, const Datatype& inner) {
  if (sizes.empty() || subsizes.size() != sizes.size() || starts.size() != sizes.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("a subarray of %d sizes, %d subsizes and %d starts",
                                                      sizes.size(), subsizes.size(), starts.size()));
  }
  if (inner.blocks_.size() > 1) {
    return absl::InvalidArgumentError("a subarray of elements of several blocks");
  }
  ptrdiff_t stride = inner.extent(), offset = 0;
  std::vector<StrideLevel> levels;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (subsizes[i] > sizes[i] || starts[i] > sizes[i] - subsizes[i]) {
      return absl::InvalidArgumentError(
          absl::StrFormat("dimension %d: [%d, +%d) of an array of %d", i, starts[i], subsizes[i], sizes[i]));
    }
    ptrdiff_t begin = 0;
    levels.insert(levels.begin(), {subsizes[i], stride});
    if (!Times(stride, starts[i], &begin) || !Times(stride, sizes[i], &stride)) return TooLarge("array");
    offset += begin;
  }
  std::vector<StridedBlock> blocks = inner.blocks_;
  for (StridedBlock& block : blocks) {
    block.offset += offset;
    block.levels.insert(block.levels.begin(), levels.begin(), levels.end());
  }
  return Make(std::move(blocks), stride);
}

absl::StatusOr<Datatype> Datatype::Struct(absl::Span<const DatatypeMember> members) {
  std::vector<StridedBlock> blocks;
  ptrdiff_t extent = 0;
  for (const DatatypeMember& member : members) {
    COHORT_ASSIGN_OR_RETURN(const Datatype part, Contiguous(member.count, member.type));
    if (Far(member.offset) || blocks.size() + part.blocks_.size() > policy::kDatatypeBlocks) {
      return TooLarge("list of members");
    }
    for (StridedBlock block : part.blocks_) {
      block.offset += member.offset;
      blocks.push_back(std::move(block));
    }
    extent = std::max(extent, member.offset + part.extent());
  }
  return Make(std::move(blocks), extent);
}

absl::StatusOr<Datatype> Datatype::Resized(size_t extent) const {
  if (extent > static_cast<size_t>(kFar)) return TooLarge("extent");
  Datatype type = *this;
  type.extent_ = static_cast<ptrdiff_t>(extent);
  return type;
}

// Calls move(block, from, to, done) for the parts of blocks that the dense bytes [first, first + bytes) are.
template <typename Move>
void Datatype::ForPart(size_t first, size_t bytes, const Move& move) const {
  auto block = static_cast<size_t>(std::upper_bound(begins_.begin(), begins_.end(), first) - begins_.begin());
  for (size_t done = 0; done < bytes; ++block) {
    const size_t begin = begins_[block - 1];
    const size_t end = block < begins_.size() ? begins_[block] : bytes_;
    const size_t from = first + done - begin;
    const size_t to = std::min(end, first + bytes) - begin;
    move(blocks_[block - 1], from, to, done);
    done += to - from;
  }
}

void Datatype::PackPart(const void* buffer, size_t first, size_t bytes, void* packed) const {
  ForPart(first, bytes, [&](const StridedBlock& block, size_t from, size_t to, size_t done) {
    PackBlock(block, static_cast<const std::byte*>(buffer), from, to, static_cast<std::byte*>(packed) + done);
  });
}

void Datatype::UnpackPart(const void* packed, size_t first, size_t bytes, void* buffer) const {
  ForPart(first, bytes, [&](const StridedBlock& block, size_t from, size_t to, size_t done) {
    UnpackBlock(block, static_cast<const std::byte*>(packed) + done, from, to,
                static_cast<std::byte*>(buffer));
  });
}

// A block: its offset, run and depth, then the levels.
std::vector<uint64_t> Datatype::Words() const {
  std::vector<uint64_t> words;
  for (const StridedBlock& block : blocks_) {
    words.insert(words.end(), {static_cast<uint64_t>(block.offset), block.run, block.levels.size()});
    for (const StrideLevel& level : block.levels) {
      words.insert(words.end(), {level.count, static_cast<uint64_t>(level.stride)});
    }
  }
  return words;
}

size_t Datatype::num_words() const {
  size_t words = 3 * blocks_.size();
  for (const StridedBlock& block : blocks_) words += 2 * block.levels.size();
  return words;
}

absl::StatusOr<Datatype> Datatype::FromWords(absl::Span<const uint64_t> words) {
  std::vector<StridedBlock> blocks;
  for (size_t at = 0; at < words.size();) {
    if (words.size() - at < 3 || words[at + 2] > policy::kDatatypeLevels ||
        words.size() - at - 3 < 2 * words[at + 2]) {
      return absl::InvalidArgumentError(absl::StrFormat("word %d of %d begins no block", at, words.size()));
    }
    StridedBlock& block = blocks.emplace_back();
    block.offset = static_cast<ptrdiff_t>(words[at]);
    block.run = words[at + 1];
    const size_t end = at + 3 + 2 * words[at + 2];
    for (at += 3; at < end; at += 2) {
      block.levels.push_back({words[at], static_cast<ptrdiff_t>(words[at + 1])});
    }
  }
  return Make(std::move(blocks), 0);
}

RunCursor::RunCursor(const Datatype& layout) : blocks_(layout.blocks()) { Enter(); }

void RunCursor::Enter() {
  within_ = 0;
  if (block_ == blocks_.size()) return;
  turns_.assign(blocks_[block_].levels.size(), 0);
  at_ = blocks_[block_].offset;
}

RunCursor::Piece RunCursor::Next(size_t most) {
  if (block_ == blocks_.size() || most == 0) return {};
  const StridedBlock& block = blocks_[block_];
  const Piece piece{at_ + static_cast<ptrdiff_t>(within_), std::min(most, block.run - within_)};
  within_ += piece.bytes;
  if (within_ < block.run) return piece;
  within_ = 0;
  for (size_t level = block.levels.size(); level-- > 0;) {
    const auto& [count, stride] = block.levels[level];
    at_ += stride;
    if (++turns_[level] < count) return piece;
    at_ -= stride * static_cast<ptrdiff_t>(count);
    turns_[level] = 0;
  }
  ++block_;
  Enter();
  return piece;
}

}  // namespace cohort::comm
