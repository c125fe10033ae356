#include "runtime/data/item_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/data/token_files.h"
#include "runtime/file.h"

namespace cohort::runtime {

absl::StatusOr<ItemFileView> ItemFileView::Open(const std::string& path, int64_t item_bytes, int64_t items) {
  const auto error = [&](auto&&... parts) {
    return absl::DataLossError(absl::StrCat(path, ": ", parts..., "; prepare the data again"));
  };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  struct stat status;
  const bool known = ::fstat(fd, &status) == 0;
  const int64_t size = known ? status.st_size : 0;
  const auto header_bytes = static_cast<int64_t>(sizeof(TokenFileHeader));
  if (size < header_bytes) {
    ::close(fd);
    return error("the file is truncated: it has ", size, " bytes, its header alone has ", header_bytes);
  }
  ItemFileView file;
  file.path_ = path;
  void* mapping = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, fd, 0);
  const int map_error = errno;
  ::close(fd);
  if (mapping == MAP_FAILED) return ErrnoStatus(map_error, "map", path);
  file.mapping_ = mapping;
  file.mapped_bytes_ = static_cast<size_t>(size);
  TokenFileHeader header;
  std::memcpy(&header, mapping, sizeof(header));
  if (std::memcmp(header.magic, "COHORTTK", sizeof(header.magic)) != 0)
    return error("this is no file of tokens");
  if (header.version != kTokenFileVersion) {
    return error("the file has version ", header.version, ", this program reads ", kTokenFileVersion);
  }
  if (header.item_bytes != item_bytes || header.items != static_cast<uint64_t>(items)) {
    return error("the header says ", header.items, " items of ", header.item_bytes, " bytes, the index ",
                 items, " of ", item_bytes);
  }
  if (size != header_bytes + items * item_bytes) {
    return error("the file has ", size, " bytes, its header promises ", header_bytes + items * item_bytes);
  }
  file.data_ = static_cast<const char*>(mapping) + header_bytes;
  file.items_ = items;
  return file;
}

ItemFileView::ItemFileView(ItemFileView&& other) noexcept
    : path_(std::move(other.path_)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapped_bytes_(other.mapped_bytes_),
      data_(other.data_),
      items_(other.items_) {}

ItemFileView::~ItemFileView() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapped_bytes_);
}

}  // namespace cohort::runtime
