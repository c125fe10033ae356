// The arithmetic of the CUDA kernels' tiles, everywhere it is used, and the list of their operations.
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <type_traits>

#include "gtest/gtest.h"
#include "runtime/ops/cuda/cuda_ops.h"
#include "runtime/ops/cuda/layers.h"
#include "runtime/ops/cuda/moe.h"
#include "runtime/ops/cuda/tiles.h"

namespace cohort::runtime::emulated_cuda {
namespace {

// The pure virtual functions of Ops make the compiler look for each operation; an operation that is inherited, or
// defined and never written for this device, would show here.
TEST(CudaOperationsTest, EveryOperationOfTheListHasItsDefinition) {
  static_assert(!std::is_abstract_v<CudaOps> && std::is_final_v<CudaOps>);
  const std::string root = COHORT_SOURCE_DIR;
  const auto read = [&](const std::string& file) {
    std::ifstream stream(root + file);
    std::stringstream text;
    text << stream.rdbuf();
    return text.str();
  };
  const auto names = [](const std::string& text, const std::regex& pattern) {
    std::set<std::string> found;
    for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it)
      found.insert((*it)[1]);
    return found;
  };
  const std::set<std::string> listed =
      names(read("/runtime/ops/ops.h"), std::regex("virtual void (\\w+)\\("));
  EXPECT_GT(listed.size(), 40u);
  std::string sources;
  for (const char* file : {"attention", "elementwise", "layers", "matmul", "moe", "sampling"}) {
    sources += read(std::string("/runtime/ops/cuda/") + file + ".cc");
  }
  EXPECT_EQ(names(sources, std::regex("void CudaOps::(\\w+)\\(")), listed);
}

// ldmatrix reads one piece of eight neighbouring rows at a time: no two may lie in the same four banks.
template <int kChunks>
void ExpectNoConflicts() {
  std::set<int> places;
  for (int row = 0; row < 64; ++row) {
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int place = Swizzled<kChunks>(row, chunk);
      EXPECT_EQ(place / kChunks, row);
      places.insert(place);
    }
  }
  EXPECT_EQ(places.size(), 64u * kChunks) << "two pieces in one place";
  for (int row = 0; row < 64; row += 8) {
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      std::set<int> banks;
      for (int i = 0; i < 8; ++i) banks.insert(Swizzled<kChunks>(row + i, chunk) % 8);
      EXPECT_EQ(banks.size(), 8u) << kChunks << " pieces, row " << row << ", piece " << chunk;
    }
  }
}
TEST(CudaTilesTest, PiecesOfEightRowsMeetDifferentBanks) {
  ExpectNoConflicts<4>();
  ExpectNoConflicts<8>();
  ExpectNoConflicts<16>();
  ExpectNoConflicts<32>();
}

// Lane 8 i + r names row r of matrix i: each pattern names each row and piece of its 16 x 16 once, in the order that the
// fragments want.
TEST(CudaTilesTest, LanesNameTheMatricesOfFragments) {
  for (int lane = 0; lane < 32; ++lane) {
    const int matrix = lane / 8, row = lane % 8;
    // a[0..3]: rows 0-7 and 8-15 of the first piece, then of the second.
    EXPECT_EQ(PlaceOfA(lane, 0, 0).row, row + matrix % 2 * 8);
    EXPECT_EQ(PlaceOfA(lane, 0, 0).chunk, matrix / 2);
    // Transposed, a piece has the rows of a and the tile's rows are k.
    EXPECT_EQ(PlaceOfTransposedA(lane, 0, 0).row, row + matrix / 2 * 8);
    EXPECT_EQ(PlaceOfTransposedA(lane, 0, 0).chunk, matrix % 2);
    // b0, b1 of eight columns (k 0-7, 8-15), then of the next eight.
    EXPECT_EQ(PlaceOfB(lane, 0, 0).row, row + matrix / 2 * 8);
    EXPECT_EQ(PlaceOfB(lane, 0, 0).chunk, matrix % 2);
    EXPECT_EQ(PlaceOfTransposedB(lane, 0, 0).row, row + matrix % 2 * 8);
    EXPECT_EQ(PlaceOfTransposedB(lane, 0, 0).chunk, matrix / 2);
  }
}

TEST(CudaTilesTest, GroupTilesCoverEachRowOnce) {
  const std::vector<std::vector<int32_t>> lengths = {
      {}, {0}, {1}, {128}, {129, 0, 0, 1}, {0, 0, 300, 127, 128, 0}, {5, 5, 5}};
  for (const std::vector<int32_t>& of_groups : lengths) {
    for (int64_t tile_rows : {1, 16, 64, 128}) {
      std::vector<int32_t> ends;
      int64_t rows = 0;
      for (int32_t length : of_groups) {
        rows += length;
        ends.push_back((ends.empty() ? 0 : ends.back()) + static_cast<int32_t>(CeilDiv(length, tile_rows)));
      }
      const int64_t groups = static_cast<int64_t>(of_groups.size());
      const int64_t most = MostGroupTiles(rows, groups, tile_rows);
      EXPECT_GE(most, groups == 0 ? 0 : ends.back());
      std::set<std::pair<int64_t, int64_t>> found;
      for (int64_t i = 0; i < most; ++i) {
        const GroupTile tile = FindGroupTile(ends.data(), groups, i, tile_rows);
        EXPECT_EQ(tile.group < 0, groups == 0 || i >= ends.back());
        if (tile.group < 0) continue;
        EXPECT_LT(tile.first, of_groups[tile.group]);
        EXPECT_EQ(tile.first % tile_rows, 0);
        EXPECT_TRUE(found.insert({tile.group, tile.first}).second);
      }
      EXPECT_EQ(static_cast<int64_t>(found.size()), groups == 0 ? 0 : ends.back());
    }
  }
}

TEST(CudaTilesTest, PartsCoverARangeInOrder) {
  for (int64_t size = 0; size < 300; ++size) {
    for (int64_t parts = 1; parts < 20; ++parts) {
      for (int64_t unit : {1, 8, 64}) {
        int64_t next = 0;
        for (int64_t part = 0; part < parts; ++part) {
          const Range range = PartOf(size, parts, part, unit);
          EXPECT_EQ(range.begin, next);
          EXPECT_GE(range.end, range.begin);
          EXPECT_TRUE(range.end == size || range.end % unit == 0);
          next = range.end;
        }
        EXPECT_EQ(next, size);
      }
    }
  }
}

TEST(CudaTilesTest, ChunksOfSumsAndSortsCoverAll) {
  for (int64_t n : {0, 1, 63, 64, 65, 1000, 16384, 16385, 1000000}) {
    EXPECT_LE(NormChunks(n), 256);
    EXPECT_GE(NormChunks(n) * NormChunkRows(n), n);
    EXPECT_LE(SortChunks(n), 512);
    EXPECT_GE(SortChunks(n) * SortChunk(n), n);
    EXPECT_EQ(SortChunk(n) % kWarp, 0);
  }
}

}  // namespace
}  // namespace cohort::runtime::emulated_cuda
