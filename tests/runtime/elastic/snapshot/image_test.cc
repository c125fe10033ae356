// Sums, images and segments: what is damaged is never taken for whole.
#include "runtime/elastic/snapshot/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "runtime/elastic/snapshot/policy.h"
#include "runtime/elastic/snapshot/segment.h"
#include "runtime/elastic/snapshot/sum.h"

namespace cohort::runtime::elastic {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> Random(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> data(bytes);
  for (std::byte& byte : data) byte = static_cast<std::byte>(random());
  return data;
}

TEST(Sum, SeesEveryBitAndTheLength) {
  std::set<uint64_t> sums;
  size_t count = 0;
  for (const size_t bytes : {0, 1, 7, 8, 63, 64, 65, 200}) {
    std::vector<std::byte> data = Random(bytes, 3);
    sums.insert(SumOf(data.data(), bytes));
    ++count;
    for (size_t bit = 0; bit < bytes * 8; ++bit) {
      data[bit / 8] ^= std::byte(1 << bit % 8);
      sums.insert(SumOf(data.data(), bytes));
      ++count;
      // Two flips a lane apart, which a sum without order would cancel.
      if (bit + 512 < bytes * 8) {
        data[bit / 8 + 64] ^= std::byte(1 << bit % 8);
        sums.insert(SumOf(data.data(), bytes));
        ++count;
        data[bit / 8 + 64] ^= std::byte(1 << bit % 8);
      }
      data[bit / 8] ^= std::byte(1 << bit % 8);
    }
  }
  EXPECT_EQ(sums.size(), count);
  const std::vector<std::byte> zeros(1000);
  EXPECT_NE(SumOf(zeros.data(), 999), SumOf(zeros.data(), 1000));
}

TEST(Sum, CopiesAreOfTheBytesWhereverTheyLie) {
  const std::vector<std::byte> from = Random(5000, 1);
  for (const bool stream : {false, true}) {
    for (size_t in = 0; in < 3; ++in) {
      for (size_t out : {0, 1, 16, 64}) {
        for (size_t bytes : {0, 1, 63, 64, 65, 1000, 4096}) {
          std::vector<std::byte> to(6000, std::byte{9});
          EXPECT_EQ(CopyAndSum(to.data() + out, from.data() + in, bytes, stream),
                    SumOf(from.data() + in, bytes));
          EXPECT_EQ(std::memcmp(to.data() + out, from.data() + in, bytes), 0);
          EXPECT_EQ(to[out + bytes], std::byte{9});
          EXPECT_TRUE(out == 0 || to[out - 1] == std::byte{9});
        }
      }
    }
  }
}

TEST(Sum, APieceIsSummedByItsChunks) {
  const std::vector<std::byte> piece = Random(2 * snapshot_policy::kChunkBytes + 5, 2);
  const size_t chunk = snapshot_policy::kChunkBytes;
  const std::vector<uint64_t> chunks = {SumOf(piece.data(), chunk), SumOf(piece.data() + chunk, chunk),
                                        SumOf(piece.data() + 2 * chunk, 5)};
  EXPECT_EQ(SumOfPiece(piece), SumOfChunks(chunks));
}

struct Made {
  ImagePlan plan;
  std::vector<std::byte> bytes;
};

Made MakeImage(GenerationName name) {
  Made made;
  made.plan = PlanImage({{"weight", 1000}, {"", 0}, {"weight/m", 77}, {"b", 1}}, "a layout");
  made.bytes.resize(made.plan.bytes);
  std::vector<uint64_t> sums;
  for (size_t i = 0; i < made.plan.pieces.size(); ++i) {
    const auto data = Random(made.plan.pieces[i].bytes, static_cast<uint32_t>(i));
    std::copy(data.begin(), data.end(), made.bytes.begin() + static_cast<ptrdiff_t>(made.plan.offsets[i]));
    sums.push_back(SumOfPiece(data));
  }
  WriteImageHead(made.plan, name, sums, absl::MakeSpan(made.bytes));
  return made;
}

TEST(Image, HoldsItsPieces) {
  const Made made = MakeImage({3, 42});
  std::vector<std::byte> longer = made.bytes;
  longer.resize(longer.size() + 100);
  for (const auto& bytes : {made.bytes, longer}) {
    const auto image = ReadImage(bytes);
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_EQ(image->name, (GenerationName{3, 42}));
    EXPECT_EQ(image->layout, "a layout");
    ASSERT_EQ(image->pieces.size(), 4u);
    EXPECT_EQ(image->bytes.size(), made.plan.bytes);
    const auto data = Random(77, 2);
    const Image::Piece* piece = image->Find("weight/m");
    ASSERT_NE(piece, nullptr);
    EXPECT_TRUE(std::equal(data.begin(), data.end(), piece->data.begin(), piece->data.end()));
    EXPECT_EQ(image->Find("other"), nullptr);
    EXPECT_TRUE(VerifyImage(*image).ok());
  }
}

TEST(Image, DamageIsFoundWhereverItIs) {
  const Made made = MakeImage({3, 42});
  std::vector<std::byte> bytes = made.bytes;
  std::vector<bool> padding(bytes.size(), true);
  const auto whole = *ReadImage(bytes);
  for (const auto& piece : whole.pieces) {
    for (size_t i = 0; i < piece.data.size(); ++i) padding[piece.data.data() - bytes.data() + i] = false;
  }
  const size_t head = made.plan.offsets[0] - made.plan.offsets[0] % 64;
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= std::byte{0x10};
    const auto image = ReadImage(bytes);
    const bool found = !image.ok() || !VerifyImage(*image).ok();
    // Between the table and the pieces lies nothing.
    EXPECT_TRUE(found || (padding[i] && i + 64 >= head)) << i;
    bytes[i] ^= std::byte{0x10};
  }
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(ReadImage(absl::MakeConstSpan(bytes).first(size)).status())) << size;
  }
  bytes[made.plan.offsets[2]] ^= std::byte{1};
  EXPECT_THAT(std::string(VerifyImage(*ReadImage(bytes)).message()), HasSubstr("weight/m"));
}

TEST(Segment, ShowsWhatIsWhole) {
  const Made one = MakeImage({1, 1}), two = MakeImage({1, 2});
  std::vector<std::byte> memory(SegmentBytes(one.plan.bytes, 2) + 64);
  // As a mapping begins.
  auto* begin = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  const absl::Span<std::byte> segment(begin, SegmentBytes(one.plan.bytes, 2));
  EXPECT_TRUE(WholeImages(segment).empty()) << "zeros";
  SegmentWriter writer(segment, one.plan.bytes, 2);
  EXPECT_TRUE(WholeImages(segment).empty());
  const auto put = [&](int slot, const Made& made) {
    const auto to = writer.Open(slot);
    std::copy(made.bytes.begin(), made.bytes.end(), to.begin());
  };
  put(0, one);
  EXPECT_TRUE(WholeImages(segment).empty()) << "there, but not closed";
  writer.Close(0, one.plan.bytes);
  put(1, two);
  writer.Close(1, two.plan.bytes);
  auto images = WholeImages(segment);
  ASSERT_EQ(images.size(), 2u);
  EXPECT_EQ(images[0].image.name.step, 2);
  EXPECT_EQ(images[1].image.name.step, 1);
  EXPECT_TRUE(StillWhole(segment, images[1]));
  writer.Open(0);
  EXPECT_FALSE(StillWhole(segment, images[1]));
  EXPECT_TRUE(StillWhole(segment, images[0]));
  ASSERT_EQ(WholeImages(segment).size(), 1u);
  // The same image again is another one.
  writer.Close(0, one.plan.bytes);
  EXPECT_FALSE(StillWhole(segment, images[1]));
  // A header that lies.
  auto* header = reinterpret_cast<SegmentHeader*>(segment.data());
  header->stamps[0].image_bytes = uint64_t{1} << 60;
  EXPECT_EQ(WholeImages(segment).size(), 1u);
  header->slots = kMostSlots + 1;
  EXPECT_TRUE(WholeImages(segment).empty());
  header->slots = 2;
  EXPECT_EQ(WholeImages(segment).size(), 1u);
  header->slot_bytes = uint64_t{1} << 63;
  EXPECT_TRUE(WholeImages(segment).empty());
}

}  // namespace
}  // namespace cohort::runtime::elastic
