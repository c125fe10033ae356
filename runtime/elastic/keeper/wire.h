// Messages between a keeper and its clients, who were built together: the bytes are this machine's.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/elastic/keeper/keeper.h"

namespace cohort::runtime::elastic::keeper_wire {

// Says in each request that both sides speak the same: changed with every change of the messages.
inline constexpr uint32_t kMagic = 0x4b504331;

enum class Request : uint8_t { kHello, kRegister, kRename, kRelease, kList, kMap, kEnd };

class Writer {
 public:
  template <typename T>
  Writer& Number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Writer& Text(absl::string_view text) {
    Number(static_cast<uint32_t>(text.size()));
    text_.append(text.data(), text.size());
    return *this;
  }
  Writer& Owner(const SegmentOwner& owner) {
    return Text(owner.member).Number(owner.epoch).Number(owner.rank);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Reads what a Writer wrote. After a read beyond the end everything is zero and ok() is false.
class Reader {
 public:
  explicit Reader(absl::string_view text) : text_(text) {}

  template <typename T>
  T Number() {
    T value{};
    if (text_.size() < sizeof(T)) {
      Fail();
    } else {
      std::memcpy(&value, text_.data(), sizeof(T));
      text_.remove_prefix(sizeof(T));
    }
    return value;
  }
  std::string Text() {
    const auto size = Number<uint32_t>();
    if (text_.size() < size) {
      Fail();
      return {};
    }
    std::string text(text_.substr(0, size));
    text_.remove_prefix(size);
    return text;
  }
  SegmentOwner Owner() {
    SegmentOwner owner;
    owner.member = Text();
    owner.epoch = Number<uint64_t>();
    owner.rank = Number<int32_t>();
    return owner;
  }
  absl::string_view rest() const { return text_; }
  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && text_.empty(); }

 private:
  void Fail() {
    ok_ = false;
    text_ = {};
  }
  absl::string_view text_;
  bool ok_ = true;
};

// One message with up to one file. The peer's end is UNAVAILABLE.
absl::Status Send(int socket, absl::string_view message, int fd);
// Without waiting. `fd` is -1 where none came.
absl::StatusOr<std::string> Receive(int socket, int* fd);

inline std::string RequestHead(Request request) { return Writer().Number(kMagic).Number(request).text(); }

}  // namespace cohort::runtime::elastic::keeper_wire
