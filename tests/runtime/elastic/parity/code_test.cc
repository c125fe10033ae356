// The code against the field's own arithmetic, and every way to lose blocks of small codes.
#include "runtime/elastic/parity/code.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>
#include <vector>

namespace cohort::runtime::elastic {
namespace {

using Block = std::vector<std::byte>;

std::vector<Block> RandomBlocks(int count, size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Block> blocks(static_cast<size_t>(count), Block(bytes));
  for (Block& block : blocks) {
    for (std::byte& byte : block) byte = static_cast<std::byte>(random());
  }
  return blocks;
}

// data, then parity.
std::vector<Block> Encoded(const ReedSolomon& code, std::vector<Block> blocks) {
  const size_t bytes = blocks[0].size();
  std::vector<const std::byte*> data;
  for (const Block& block : blocks) data.push_back(block.data());
  std::vector<Block> parity(static_cast<size_t>(code.parity()), Block(bytes));
  std::vector<std::byte*> out;
  for (Block& block : parity) out.push_back(block.data());
  code.Encode(data, out, bytes);
  blocks.insert(blocks.end(), parity.begin(), parity.end());
  return blocks;
}

// GF(2^8) by x^8 + x^4 + x^3 + x^2 + 1, bit by bit.
int Times(int a, int b) {
  int product = 0;
  for (; b > 0; b >>= 1) {
    if (b & 1) product ^= a;
    a = (a << 1) ^ (a & 0x80 ? 0x11d : 0);
  }
  return product;
}
int Inverse(int a) {
  for (int b = 1; b < 256; ++b) {
    if (Times(a, b) == 1) return b;
  }
  return 0;
}

TEST(ReedSolomon, ParityIsTheCauchyMatrixTimesTheData) {
  const ReedSolomon code(5, 3);
  const auto blocks = Encoded(code, RandomBlocks(5, 100, 1));
  for (int j = 0; j < 3; ++j) {
    for (size_t x = 0; x < 100; ++x) {
      int sum = 0;
      for (int i = 0; i < 5; ++i) sum ^= Times(Inverse((5 + j) ^ i), static_cast<int>(blocks[i][x]));
      ASSERT_EQ(static_cast<int>(blocks[5 + j][x]), sum) << j << " " << x;
    }
  }
}

TEST(ReedSolomon, EveryChoiceOfBlocksGivesTheOthersBack) {
  for (int k = 1; k <= 5; ++k) {
    for (int m = 1; m <= 3; ++m) {
      const ReedSolomon code(k, m);
      const auto blocks = Encoded(code, RandomBlocks(k, 333, static_cast<uint32_t>(10 * k + m)));
      for (uint32_t choice = 0; choice < 1u << (k + m); ++choice) {
        if (std::popcount(choice) != k) continue;
        std::vector<int> symbols;
        std::vector<const std::byte*> chosen;
        for (int i = 0; i < k + m; ++i) {
          if ((choice >> i & 1) == 0) continue;
          symbols.push_back(i);
          chosen.push_back(blocks[i].data());
        }
        for (int lost = 0; lost < k; ++lost) {
          Block back(333);
          ASSERT_TRUE(code.Solve(symbols, chosen, lost, back.data(), back.size()).ok());
          ASSERT_EQ(back, blocks[lost]) << k << "+" << m << ", block " << lost << " from " << choice;
        }
      }
    }
  }
}

TEST(ReedSolomon, BlocksThatAreNotThereAreZeros) {
  const ReedSolomon code(4, 2);
  auto data = RandomBlocks(4, 64, 3);
  data[1].assign(64, std::byte{0});
  data[3].assign(64, std::byte{0});
  const auto blocks = Encoded(code, data);
  Block p0(64), p1(64);
  std::vector<std::byte*> out = {p0.data(), p1.data()};
  code.Encode(std::vector<const std::byte*>{data[0].data(), nullptr, data[2].data(), nullptr}, out, 64);
  EXPECT_EQ(p0, blocks[4]);
  EXPECT_EQ(p1, blocks[5]);
  Block back(64);
  ASSERT_TRUE(code.Solve(std::vector<int>{1, 3, 4, 5},
                         std::vector<const std::byte*>{nullptr, nullptr, p0.data(), p1.data()}, 2,
                         back.data(), 64)
                  .ok());
  EXPECT_EQ(back, data[2]);
  code.Encode(std::vector<const std::byte*>(4, nullptr), out, 64);
  EXPECT_EQ(p0, Block(64));
}

TEST(ReedSolomon, WhatCannotBeSolvedIsAnError) {
  const ReedSolomon code(2, 2);
  Block block(8);
  const std::vector<const std::byte*> two(2, block.data());
  EXPECT_FALSE(code.Solve(std::vector<int>{1, 1}, two, 0, block.data(), 8).ok());
  EXPECT_FALSE(code.Solve(std::vector<int>{1, 4}, two, 0, block.data(), 8).ok());
  EXPECT_FALSE(code.Solve(std::vector<int>{1}, {}, 0, block.data(), 8).ok());
  EXPECT_FALSE(code.Solve(std::vector<int>{1, 2}, two, 2, block.data(), 8).ok());
}

}  // namespace
}  // namespace cohort::runtime::elastic
