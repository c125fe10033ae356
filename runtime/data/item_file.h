// A binary file of prepared tokens or document offsets, mapped into memory and checked.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/statusor.h"

namespace cohort::runtime {

// Movable; unmaps when destroyed.
class ItemFileView {
 public:
  // DataLoss, naming the file, unless its header, its size and what the index says of it agree.
  static absl::StatusOr<ItemFileView> Open(const std::string& path, int64_t item_bytes, int64_t items);
  ItemFileView(ItemFileView&& other) noexcept;
  ItemFileView& operator=(ItemFileView&&) = delete;
  ~ItemFileView();

  const std::string& path() const { return path_; }
  int64_t items() const { return items_; }
  // Items of 2, 4 or 8 bytes, which the file has been opened with.
  template <typename Item>
  Item at(int64_t i) const {
    Item item;
    std::memcpy(&item, data_ + i * static_cast<int64_t>(sizeof(Item)), sizeof(Item));
    return item;
  }

 private:
  ItemFileView() = default;
  std::string path_;
  void* mapping_ = nullptr;
  size_t mapped_bytes_ = 0;
  const char* data_ = nullptr;
  int64_t items_ = 0;
};

}  // namespace cohort::runtime
