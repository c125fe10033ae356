#include "runtime/data/permutation.h"

#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace cohort::runtime {
namespace {

TEST(RandomPermutation, IsOneForEverySize) {
  for (uint64_t size = 1; size <= 300; ++size) {
    const RandomPermutation order(size, 42, RandomPurpose::kDataOrder, size % 3);
    std::vector<bool> seen(size);
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t image = order(i);
      ASSERT_LT(image, size);
      ASSERT_FALSE(seen[image]) << size;
      seen[image] = true;
    }
  }
}

TEST(RandomPermutation, StaysInLargeDomains) {
  for (const uint64_t size : {(uint64_t{1} << 40) - 3, (uint64_t{1} << 40) + 1, uint64_t{1} << 61}) {
    const RandomPermutation order(size, 1, RandomPurpose::kDataOrder, 0);
    std::set<uint64_t> images;
    for (uint64_t i = 0; i < 1000; ++i) images.insert(order(size - 1 - i));
    EXPECT_EQ(images.size(), 1000u);
    EXPECT_LT(*images.rbegin(), size);
    EXPECT_GT(*images.rbegin(), size / 2);  // they are spread
    EXPECT_LT(*images.begin(), size / 2);
  }
}

TEST(RandomPermutation, LooksRandom) {
  // Over many seeds, the image of an element is near uniform, and neighbours are not kept together.
  constexpr uint64_t kSize = 10;
  std::vector<int> counts(kSize);
  int adjacent = 0;
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    const RandomPermutation order(kSize, seed, RandomPurpose::kDataOrder, 0);
    ++counts[order(3)];
    adjacent += order(4) == order(3) + 1;
  }
  for (const int count : counts) EXPECT_NEAR(count, 500, 110);  // five standard deviations
  EXPECT_NEAR(adjacent, 500, 110);                              // 9 of 90 ordered pairs
}

TEST(RandomPermutation, SeedPurposeAndStreamMatter) {
  const auto images = [](uint64_t seed, RandomPurpose purpose, uint64_t stream) {
    std::vector<uint64_t> result;
    const RandomPermutation order(1000, seed, purpose, stream);
    for (uint64_t i = 0; i < 20; ++i) result.push_back(order(i));
    return result;
  };
  const auto base = images(1, RandomPurpose::kDataOrder, 0);
  EXPECT_EQ(base, images(1, RandomPurpose::kDataOrder, 0));
  EXPECT_NE(base, images(2, RandomPurpose::kDataOrder, 0));
  EXPECT_NE(base, images(1, RandomPurpose::kDataSplit, 0));
  EXPECT_NE(base, images(1, RandomPurpose::kDataOrder, 1));
}

}  // namespace
}  // namespace cohort::runtime
