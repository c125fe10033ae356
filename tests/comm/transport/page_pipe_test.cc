// Pages lent from one end of a pipe to the other, both in this process: what comes out is what was lent, in whatever order it
// is asked for.
#include "comm/transport/shm/page_pipe.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/types/span.h"

namespace cohort::comm::shm {
namespace {

constexpr size_t kPipeBytes = 128 << 10;

// A lender with its borrower, and messages whose bytes tell one from the other.
class PagePipeTest : public testing::Test {
 protected:
  struct Message {
    std::vector<std::byte> memory;
    absl::Span<std::byte> bytes;
    size_t lent = 0;
    uint64_t at = 0;
  };

  void SetUp() override {
    ASSERT_TRUE(lender_.Open(kPipeBytes))
        << "are this user's pages in pipes used up (fs.pipe-user-pages-soft)?";
    ASSERT_TRUE(borrower_.Open(getpid(), lender_.receiver_fd(), lender_.inode()));
  }

  // As a sender announces it and a receiver notes it. The message begins so far behind the begin of a page.
  void Lend(Message& message, size_t bytes, size_t behind_page = 0) {
    static unsigned next = 0;
    message.memory.resize(bytes + behind_page + 4096);
    const size_t begin = -reinterpret_cast<uintptr_t>(message.memory.data()) % 4096 + behind_page;
    message.bytes = absl::MakeSpan(message.memory).subspan(begin, bytes);
    for (std::byte& byte : message.bytes) byte = static_cast<std::byte>(next++ * 2654435761u >> 24);
    const std::optional<uint32_t> pages = lender_.Lend(message.bytes.data(), bytes);
    ASSERT_TRUE(pages.has_value());
    message.lent = LentBytes(reinterpret_cast<uintptr_t>(message.bytes.data()), bytes, *pages);
    message.at = borrower_.Note(message.lent);
  }

  // Whether bytes [from, from + bytes) of the message come out.
  bool Takes(const Message& message, size_t from, size_t bytes) {
    std::vector<std::byte> got(bytes);
    size_t at = 0;
    while (at < bytes) {
      const size_t part = borrower_.Read(message.at + from + at, got.data() + at, bytes - at);
      if (part == 0) return false;
      at += part;
    }
    return std::equal(got.begin(), got.end(), message.bytes.begin() + static_cast<ptrdiff_t>(from));
  }

  PageLender lender_;
  PageBorrower borrower_;
};

TEST_F(PagePipeTest, WhatIsLentComesOut) {
  for (const size_t bytes : {1, 16, 4095, 4096, 4097, 10000, 65536}) {
    for (const size_t behind_page : {0, 1, 16, 2048, 4095}) {
      Message message;
      Lend(message, bytes, behind_page);
      EXPECT_EQ(message.lent, bytes) << behind_page;
      EXPECT_TRUE(Takes(message, 0, bytes)) << bytes << " from " << behind_page;
    }
  }
}

TEST_F(PagePipeTest, PartByPart) {
  Message message;
  Lend(message, 50000);
  ASSERT_EQ(message.lent, 50000u);
  EXPECT_TRUE(Takes(message, 0, 1));
  EXPECT_TRUE(Takes(message, 1, 20000));
  EXPECT_TRUE(Takes(message, 20001, 29999));
}

TEST_F(PagePipeTest, MoreThanThePipeHoldsIsLentInPart) {
  Message message;
  Lend(message, 3 * kPipeBytes);
  EXPECT_GT(message.lent, kPipeBytes - 4096 - 1);
  EXPECT_LE(message.lent, kPipeBytes);
  EXPECT_TRUE(Takes(message, 0, message.lent));
  Message next;
  Lend(next, 1000);
  EXPECT_EQ(next.lent, 1000u);
  EXPECT_TRUE(Takes(next, 0, 1000));
}

TEST_F(PagePipeTest, AFullPipeLendsNothing) {
  Message first, second;
  Lend(first, 2 * kPipeBytes);
  Lend(second, 1000);
  EXPECT_EQ(second.lent, 0u);
  EXPECT_TRUE(Takes(first, 0, first.lent));
}

TEST_F(PagePipeTest, OneTakenOutOfTurnPassesOverThoseBefore) {
  Message first, second, third;
  Lend(first, 20000);
  Lend(second, 30000);
  Lend(third, 10000);
  EXPECT_TRUE(Takes(second, 0, 30000));
  EXPECT_FALSE(Takes(first, 0, 1));
  EXPECT_TRUE(Takes(third, 0, 10000));
}

TEST_F(PagePipeTest, OneGivenUpHalfwayIsPassedOver) {
  Message first, second;
  Lend(first, 20000);
  Lend(second, 30000);
  EXPECT_TRUE(Takes(first, 0, 5000));
  EXPECT_TRUE(Takes(second, 0, 30000));
}

TEST_F(PagePipeTest, SkippingMakesRoom) {
  Message first, second;
  Lend(first, 2 * kPipeBytes);
  borrower_.SkipTo(first.at + first.lent);
  Lend(second, kPipeBytes / 2);
  EXPECT_EQ(second.lent, kPipeBytes / 2);
  EXPECT_TRUE(Takes(second, 0, kPipeBytes / 2));
}

// Receivers read what is not lent from the sender's memory, and learn there that it cannot be read.
TEST_F(PagePipeTest, MemoryThatCannotBeReadIsNotLent) {
  constexpr size_t kPages = 16 << 10;
  void* memory = mmap(nullptr, kPages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  EXPECT_EQ(lender_.Lend(static_cast<std::byte*>(memory), kPages), std::optional<uint32_t>(0));
  munmap(memory, kPages);
}

TEST_F(PagePipeTest, WhatWasLentOutlivesItsLender) {
  Message message;
  Lend(message, 5000);
  lender_.Close();
  EXPECT_TRUE(Takes(message, 0, 5000));
  std::byte more;
  EXPECT_EQ(borrower_.Read(message.at + 5000, &more, 1), 0u);
}

// As after the sender has closed it and the system has given its number to something else.
TEST_F(PagePipeTest, AnotherPipeOfThatNumberIsNotOpened) {
  PageBorrower other;
  EXPECT_FALSE(other.Open(getpid(), lender_.receiver_fd(), lender_.inode() + 1));
  EXPECT_FALSE(other.open());
}

TEST(PageBorrower, APipeThatIsNotThereIsNotOpened) {
  PageBorrower borrower;
  EXPECT_FALSE(borrower.Open(getpid(), 1 << 20, 1));
  std::byte byte;
  EXPECT_EQ(borrower.Read(0, &byte, 1), 0u);
}

TEST(LentBytes, AreThoseOfTheirPages) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  EXPECT_EQ(LentBytes(0, 10 * page, 0), 0u);
  EXPECT_EQ(LentBytes(0, 10 * page, 3), 3 * page);
  EXPECT_EQ(LentBytes(page - 16, 10 * page, 3), 16 + 2 * page);
  EXPECT_EQ(LentBytes(page - 16, 100, 2), 100u);
}

}  // namespace
}  // namespace cohort::comm::shm
