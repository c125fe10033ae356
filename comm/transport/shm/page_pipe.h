// Pages that a sender lends to a receiver of the same host, in a pipe: vmsplice(2) puts references to them there, and the
// receiver's read(2) copies from them into place, once. process_vm_readv(2) copies once as well, but looks up and pins
// every page of the other process by the slow path, under that process' lock: 0.26 us a page on a virtual machine, more
// than the copy itself takes. Lending one's own pages takes 0.05. Measured, both ways at once, microseconds lent and
// read: 64 KiB 3.9, 5.9; 1 MiB 55, 78; 8 MiB, of which memory is the limit, 974, 1176.
//
// Bytes leave a pipe in the order in which they came. Who wants some behind others skips those, and the message that they are
// of is read from the sender's memory. So lending never fails: it is a faster way for as many first bytes as were lent. A
// pipe's reader and its writer exclude each other while they copy: reads are short (policy::kShmBorrowBytes), so that
// nobody waits long to lend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace cohort::comm::shm {

// The sender's end, for one receiver.
class PageLender {
 public:
  PageLender() = default;
  ~PageLender() { Close(); }
  PageLender(const PageLender&) = delete;
  PageLender& operator=(const PageLender&) = delete;

  // A pipe for so many bytes in whole pages at most. False where the system grants none.
  bool Open(size_t bytes);
  // No more is lent; what was may be read still by a receiver that has its end open.
  void Close();
  bool open() const { return ends_[0] >= 0; }
  // The descriptor that the receiver opens (PageBorrower::Open), and its inode: numbers of descriptors are used again.
  int receiver_fd() const { return ends_[0]; }
  uint64_t inode() const { return inode_; }
  // Lends the first bytes from `data` on, and returns how many pages: none where the pipe is full, or memory has no pages
  // (a device's); nullopt where the system forbids it. They must stay as they are until the message is done, as they would
  // where the receiver reads them here.
  std::optional<uint32_t> Lend(const std::byte* data, size_t bytes);

 private:
  int ends_[2] = {-1, -1};  // of reading, of writing
  uint64_t inode_ = 0;
};

// The bytes in so many pages lent of a message.
size_t LentBytes(uint64_t address, size_t bytes, uint32_t pages);

// The receiver's end.
class PageBorrower {
 public:
  PageBorrower() = default;
  ~PageBorrower();
  PageBorrower(const PageBorrower&) = delete;
  PageBorrower& operator=(const PageBorrower&) = delete;

  // Whether it is that pipe, and could be opened.
  bool Open(int pid, int fd, uint64_t inode);
  bool open() const { return fd_ >= 0; }
  // Counts what was lent next, in the order of announcements; returns where it begins.
  uint64_t Note(size_t bytes) { return (announced_ += bytes) - bytes; }
  // Reads up to so many bytes from that place on; how many: none where they were skipped.
  size_t Read(uint64_t at, std::byte* to, size_t bytes);
  // Makes room for more: what lies before that place is read from its sender's memory, if it is still wanted.
  void SkipTo(uint64_t at);

 private:
  // The next so many bytes, or fewer.
  size_t Take(std::byte* to, size_t bytes);

  int fd_ = -1, nowhere_ = -1;
  uint64_t announced_ = 0;
  uint64_t taken_ = 0;  // read or skipped
};

}  // namespace cohort::comm::shm
