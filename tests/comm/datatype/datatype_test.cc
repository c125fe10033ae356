// Derived datatypes against plain loops over the bytes that they describe.
#include "comm/datatype/datatype.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "comm/datatype/policy.h"

namespace cohort::comm {
namespace {

// A type, and the offsets of its bytes in order, by the definitions.
struct Described {
  Datatype type;
  std::vector<ptrdiff_t> offsets;
};

std::vector<ptrdiff_t> Shifted(const std::vector<ptrdiff_t>& offsets, ptrdiff_t by) {
  std::vector<ptrdiff_t> shifted = offsets;
  for (ptrdiff_t& offset : shifted) offset += by;
  return shifted;
}

void Append(std::vector<ptrdiff_t>* all, const std::vector<ptrdiff_t>& more) {
  all->insert(all->end(), more.begin(), more.end());
}

Described Random(std::mt19937& random, int depth) {
  const auto draw = [&](int limit) { return static_cast<int>(random() % static_cast<unsigned>(limit)); };
  if (depth == 0) {
    const DataType dtype =
        std::vector{DataType::kU8, DataType::kBF16, DataType::kF32, DataType::kF64}[draw(4)];
    Described element{Datatype::Element(dtype), {}};
    for (size_t i = 0; i < SizeOf(dtype); ++i) element.offsets.push_back(static_cast<ptrdiff_t>(i));
    return element;
  }
  const Described inner = Random(random, depth - 1);
  const ptrdiff_t extent = inner.type.extent();
  std::vector<ptrdiff_t> offsets;
  const auto make = [&]() -> absl::StatusOr<Datatype> {
    switch (draw(6)) {
      case 0: {
        const int count = draw(4);
        for (int i = 0; i < count; ++i) Append(&offsets, Shifted(inner.offsets, i * extent));
        return Datatype::Contiguous(count, inner.type);
      }
      case 1: {
        const int count = 1 + draw(4), length = 1 + draw(3), stride = draw(7) - 2;
        for (int i = 0; i < count; ++i) {
          for (int j = 0; j < length; ++j)
            Append(&offsets, Shifted(inner.offsets, (i * stride + j) * extent));
        }
        return Datatype::Vector(count, length, stride, inner.type);
      }
      case 2: {
        const int count = 1 + draw(4), length = 1 + draw(3), stride = draw(50);
        for (int i = 0; i < count; ++i) {
          for (int j = 0; j < length; ++j) Append(&offsets, Shifted(inner.offsets, i * stride + j * extent));
        }
        return Datatype::HVector(count, length, stride, inner.type);
      }
      case 3: {
        std::vector<ptrdiff_t> displacements(1 + draw(4));
        const int length = 1 + draw(2);
        for (ptrdiff_t& displacement : displacements) {
          displacement = draw(9) - 3;
          for (int j = 0; j < length; ++j)
            Append(&offsets, Shifted(inner.offsets, (displacement + j) * extent));
        }
        return Datatype::IndexedBlock(length, displacements, inner.type);
      }
      case 4: {
        if (inner.type.blocks().size() > 1) {
          offsets = inner.offsets;
          return inner.type.Resized(static_cast<size_t>(std::max<ptrdiff_t>(0, extent)) + 3);
        }
        const size_t sizes[] = {3, 4}, sub[] = {1 + random() % 2, 1 + random() % 3},
                     at[] = {random() % 2, random() % 2};
        for (size_t i = 0; i < sub[0]; ++i) {
          for (size_t j = 0; j < sub[1]; ++j) {
            Append(&offsets,
                   Shifted(inner.offsets, static_cast<ptrdiff_t>((at[0] + i) * 4 + at[1] + j) * extent));
          }
        }
        return Datatype::Subarray(sizes, sub, at, inner.type);
      }
      default: {
        std::vector<DatatypeMember> members;
        for (int m = 0; m < 2; ++m) {
          members.push_back({static_cast<size_t>(1 + draw(2)), draw(40) - 10, inner.type});
          for (size_t i = 0; i < members.back().count; ++i) {
            Append(&offsets,
                   Shifted(inner.offsets, members.back().offset + static_cast<ptrdiff_t>(i) * extent));
          }
        }
        return Datatype::Struct(members);
      }
    }
  };
  auto type = make();
  EXPECT_TRUE(type.ok()) << type.status();
  return {*std::move(type), std::move(offsets)};
}

TEST(DatatypeTest, RandomNestsArePackedAsDescribed) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 3000; ++trial) {
    const Described described = Random(random, 1 + trial % 4);
    const Datatype& type = described.type;
    ASSERT_EQ(type.bytes(), described.offsets.size());
    if (described.offsets.empty()) continue;
    const auto [low, high] = std::minmax_element(described.offsets.begin(), described.offsets.end());
    ASSERT_EQ(type.lower(), *low);
    ASSERT_EQ(type.upper(), *high + 1);
    const auto size = static_cast<size_t>(type.upper() - type.lower());
    std::vector<uint8_t> memory(size), packed(type.bytes() + 1, 0xee);
    for (uint8_t& byte : memory) byte = static_cast<uint8_t>(random());
    uint8_t* buffer = memory.data() - type.lower();
    type.Pack(buffer, packed.data());
    for (size_t i = 0; i < type.bytes(); ++i)
      ASSERT_EQ(packed[i], buffer[described.offsets[i]]) << trial << " " << i;
    ASSERT_EQ(packed[type.bytes()], 0xee);

    // The same in parts, run by run, and by a copy that went through words.
    const auto copy = Datatype::FromWords(type.Words());
    ASSERT_TRUE(copy.ok()) << copy.status();
    ASSERT_EQ(type.Words().size(), type.num_words());
    std::vector<uint8_t> parts(type.bytes()), again(size, 0xaa);
    RunCursor cursor(*copy);
    for (size_t at = 0; at < type.bytes();) {
      const size_t bytes = std::min<size_t>(1 + random() % 40, type.bytes() - at);
      copy->PackPart(buffer, at, bytes, parts.data() + at);
      copy->UnpackPart(packed.data() + at, at, bytes, again.data() - type.lower());
      for (size_t i = 0; i < bytes;) {
        const RunCursor::Piece piece = cursor.Next(bytes - i);
        ASSERT_GT(piece.bytes, 0u);
        for (size_t j = 0; j < piece.bytes; ++j, ++i) {
          ASSERT_EQ(piece.offset + static_cast<ptrdiff_t>(j), described.offsets[at + i]) << trial;
        }
      }
      at += bytes;
    }
    ASSERT_EQ(cursor.Next(SIZE_MAX).bytes, 0u);
    ASSERT_TRUE(std::equal(parts.begin(), parts.end(), packed.begin())) << trial;
    for (const ptrdiff_t offset : described.offsets) {
      ASSERT_EQ(again[static_cast<size_t>(offset - type.lower())], buffer[offset]) << trial;
    }

    std::vector<uint8_t> expected = memory;
    for (size_t i = 0; i < type.bytes(); ++i) {
      packed[i] = static_cast<uint8_t>(random());
      expected[static_cast<size_t>(described.offsets[i] - type.lower())] = packed[i];
    }
    type.Unpack(packed.data(), buffer);
    ASSERT_EQ(memory, expected) << trial;
  }
}

// Every length of run that has a loop of its own, near and far, beside rows that are no multiple of what is moved at
// once.
TEST(DatatypeTest, RunsOfAnyLengthInAnyNumber) {
  std::mt19937 random(2);
  std::vector<uint8_t> memory(24 << 20);
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<uint8_t>(i * 7 + (i >> 8));
  for (const size_t run : {1,  2,  3,  4,  5,  6,  7,  8,   9,   12,  13,  16,  17,  24,  31,
                           32, 33, 40, 48, 63, 64, 65, 100, 128, 129, 255, 256, 511, 512, 700}) {
    for (const auto& [outer, inner] : {std::pair<size_t, size_t>{1, 3}, {3, 13}, {40, 25}, {300, 120}}) {
      const size_t stride = run + 1 + (outer > 100 ? 64 : random() % 70), plane = inner * stride + 9;
      if (outer * plane > memory.size()) continue;
      const auto row =
          *Datatype::HVector(inner, run, static_cast<ptrdiff_t>(stride), Datatype::Element(DataType::kU8));
      const auto type = *Datatype::HVector(outer, 1, static_cast<ptrdiff_t>(plane), row);
      std::vector<uint8_t> packed(type.bytes()), expected, back(outer * plane, 0xaa), placed = back;
      for (size_t i = 0; i < outer; ++i) {
        for (size_t j = 0; j < inner; ++j) {
          const auto at = static_cast<ptrdiff_t>(i * plane + j * stride),
                     end = at + static_cast<ptrdiff_t>(run);
          expected.insert(expected.end(), memory.begin() + at, memory.begin() + end);
          std::copy(memory.begin() + at, memory.begin() + end, placed.begin() + at);
        }
      }
      type.Pack(memory.data(), packed.data());
      type.Unpack(packed.data(), back.data());
      ASSERT_TRUE(packed == expected) << run << " " << outer << " " << inner;
      ASSERT_TRUE(back == placed) << run << " " << outer << " " << inner;
    }
  }
}

TEST(DatatypeTest, WrongWordsAreErrors) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(Datatype::FromWords({{0, 8}}).status().code(), invalid);
  EXPECT_EQ(Datatype::FromWords({{0, 8, 1, 4}}).status().code(), invalid);
  EXPECT_EQ(Datatype::FromWords({{0, 8, uint64_t{1} << 60}}).status().code(), invalid);
  EXPECT_EQ(Datatype::FromWords({{0, 8, 1, uint64_t{1} << 62, 16}}).status().code(), invalid);
  EXPECT_EQ(Datatype::FromWords({{uint64_t{1} << 62, 8, 0}}).status().code(), invalid);
  // Strides and offsets that overflow when they are multiplied or subtracted.
  const uint64_t far = uint64_t{1} << 63;
  EXPECT_EQ(Datatype::FromWords({{0, 8, 2, 2, 16, 3, far - 1}}).status().code(), invalid);
  EXPECT_EQ(Datatype::FromWords({{far, 8, 0, far - 1, 8, 0}}).status().code(), invalid);
  EXPECT_EQ(Datatype::FromWords({})->bytes(), 0u);
}

TEST(DatatypeTest, TheSameBytesHaveTheSameForm) {
  const Datatype real = Datatype::Element(DataType::kF64);
  const size_t sizes[] = {16, 16, 16}, x[] = {16, 16, 1}, y[] = {16, 1, 16}, z[] = {1, 16, 16},
               at[] = {0, 0, 0};
  const auto face_x = *Datatype::Subarray(sizes, x, at, real);
  ASSERT_EQ(face_x.blocks().size(), 1u);
  EXPECT_EQ(face_x.blocks()[0], (StridedBlock{0, 8, {{256, 128}}}));
  EXPECT_EQ(face_x.blocks()[0], Datatype::Vector(256, 1, 16, real)->blocks()[0]);
  EXPECT_EQ(face_x.blocks()[0],
            Datatype::HVector(16, 1, 16 * 128, *Datatype::Vector(16, 1, 16, real))->blocks()[0]);
  std::vector<ptrdiff_t> all(256);
  for (int i = 0; i < 256; ++i) all[i] = 16 * i;
  EXPECT_EQ(face_x.blocks()[0], Datatype::IndexedBlock(1, all, real)->blocks()[0]);
  EXPECT_EQ(Datatype::Subarray(sizes, y, at, real)->blocks()[0], (StridedBlock{0, 128, {{16, 2048}}}));
  EXPECT_EQ(Datatype::Subarray(sizes, z, at, real)->blocks()[0], (StridedBlock{0, 2048, {}}));
  EXPECT_EQ(Datatype::Contiguous(7, *Datatype::Contiguous(3, real))->blocks()[0], (StridedBlock{0, 168, {}}));
}

// What users of indexed types pay for is the layout, not how they described it.
TEST(DatatypeTest, AListOfRowsOfABoxIsOneBlock) {
  const Datatype real = Datatype::Element(DataType::kF32);
  for (const size_t columns : {size_t{1}, size_t{3}}) {
    for (const size_t rows : {size_t{2}, size_t{3}, size_t{7}}) {
      std::vector<ptrdiff_t> displacements;
      for (ptrdiff_t plane = 0; plane < 5; ++plane) {
        for (size_t row = 0; row < rows; ++row)
          displacements.push_back((plane + 1) * 100 + static_cast<ptrdiff_t>(row) * 10);
      }
      const size_t sizes[] = {7, 10, 10}, sub[] = {5, rows, columns}, at[] = {1, 0, 0};
      const auto listed = *Datatype::IndexedBlock(columns, displacements, real);
      EXPECT_EQ(listed.blocks(), Datatype::Subarray(sizes, sub, at, real)->blocks())
          << rows << " " << columns;
    }
  }
}

// Joining stops at the levels that are packed: two layouts that have all of them stay two.
TEST(DatatypeTest, TwoOfTheDeepestLayoutsAreNotJoined) {
  absl::StatusOr<Datatype> deep = Datatype::Element(DataType::kU8);
  for (size_t i = 0; i < policy::kDatatypeLevels; ++i) {
    deep = Datatype::HVector(2, 1, ptrdiff_t{3} << (2 * i), *deep);
    ASSERT_TRUE(deep.ok()) << deep.status();
  }
  ASSERT_EQ(deep->blocks()[0].levels.size(), policy::kDatatypeLevels);
  const std::vector<DatatypeMember> members = {{1, 0, *deep}, {1, 2 * deep->upper(), *deep}};
  const auto two = Datatype::Struct(members);
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(two->blocks().size(), 2u);
  const auto told = Datatype::FromWords(two->Words());
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_EQ(told->blocks(), two->blocks());
}

TEST(DatatypeTest, AListOfManyScalesIsPackedInOrder) {
  std::vector<ptrdiff_t> displacements = {0};
  for (int scale = 0; scale < 11; ++scale) {  // Cantor's set
    const size_t before = displacements.size();
    ptrdiff_t shift = 2;
    for (int i = 0; i < scale; ++i) shift *= 3;
    for (size_t i = 0; i < before; ++i) displacements.push_back(displacements[i] + shift);
  }
  const auto type = *Datatype::IndexedBlock(1, displacements, Datatype::Element(DataType::kU8));
  std::vector<uint8_t> memory(static_cast<size_t>(type.upper())), packed(type.bytes());
  for (size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<uint8_t>(i * 7 + (i >> 8));
  type.Pack(memory.data(), packed.data());
  for (size_t i = 0; i < packed.size(); ++i)
    ASSERT_EQ(packed[i], memory[static_cast<size_t>(displacements[i])]);
}

TEST(DatatypeTest, WrongLayoutsAreErrors) {
  const Datatype real = Datatype::Element(DataType::kF32);
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(Datatype::Contiguous(SIZE_MAX, real).status().code(), invalid);
  EXPECT_EQ(Datatype::Vector(3, 1, PTRDIFF_MAX, real).status().code(), invalid);
  EXPECT_EQ(Datatype::Vector(3, 1, PTRDIFF_MIN, real).status().code(), invalid);
  EXPECT_EQ(Datatype::HVector(SIZE_MAX / 2, SIZE_MAX / 2, 0, real).status().code(), invalid);
  const std::vector<DatatypeMember> far = {{1, PTRDIFF_MIN, real}};
  EXPECT_EQ(Datatype::Struct(far).status().code(), invalid);
  const size_t sizes[] = {4, 4}, sub[] = {2, 4}, at[] = {3, 0};
  EXPECT_EQ(Datatype::Subarray(sizes, sub, at, real).status().code(), invalid);
  EXPECT_EQ(Datatype::Subarray(sizes, sub, {}, real).status().code(), invalid);
  EXPECT_EQ(real.Resized(SIZE_MAX).status().code(), invalid);
  absl::StatusOr<Datatype> deep = real;
  for (int i = 0; i < 10 && deep.ok(); ++i) deep = Datatype::HVector(2, 1, ptrdiff_t{1000} << (2 * i), *deep);
  EXPECT_EQ(deep.status().code(), invalid);
  EXPECT_EQ(Datatype::Contiguous(0, real)->bytes(), 0u);
}

}  // namespace
}  // namespace cohort::comm
