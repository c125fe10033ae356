#include "parallel/reshard/staged_pieces.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "comm/check.h"
#include "runtime/device/host_reader.h"
#include "runtime/device/policy.h"
#include "runtime/tensor.h"

namespace cohort::parallel {

using runtime::Device;
using runtime::HostReader;

namespace {

constexpr auto kReadBytes = static_cast<int64_t>(runtime::device_policy::kHostReadBytes);

bool OnHost(const std::vector<Device*>& devices, size_t piece) {
  return devices.empty() || devices[piece]->in_host_memory();
}

void ReadPiece(HostReader& reader, const void* from, int64_t bytes, void* to) {
  for (int64_t at = 0; at < bytes; at += kReadBytes) {
    const auto part = static_cast<size_t>(std::min(kReadBytes, bytes - at));
    reader.Read(static_cast<const char*>(from) + at, part,
                [&](const void* host) { std::memcpy(static_cast<char*>(to) + at, host, part); });
  }
}

}  // namespace

absl::StatusOr<StagedPieces> StagedPieces::Create(PieceMemory memory, absl::Span<const HeldPiece> before,
                                                  absl::Span<const HeldPiece> after, const ReshardPlan& plan,
                                                  int rank) {
  StagedPieces staged;
  staged.on_host_ = std::move(memory);
  PieceMemory& pieces = staged.on_host_;
  std::vector<bool> read(before.size(), false);
  for (const PieceCopy& copy : plan.copies) {
    if (copy.source == rank) read[static_cast<size_t>(copy.from_piece)] = true;
  }
  std::map<Device*, std::unique_ptr<HostReader>> readers;
  for (size_t i = 0; i < before.size(); ++i) {
    if (!read[i] || OnHost(pieces.before_on, i)) continue;
    Device& device = *pieces.before_on[i];
    std::unique_ptr<HostReader>& reader = readers[&device];
    if (reader == nullptr) {
      COHORT_ASSIGN_OR_RETURN(reader, MakeHostReader(device, kReadBytes));
      reader->Mark();
    }
    const int64_t bytes = before[i].bytes();
    void* const room =
        staged.rooms_.emplace_back(runtime::CpuDevice().Allocate(static_cast<size_t>(bytes))).get();
    ReadPiece(*reader, pieces.before[i], bytes, room);
    pieces.before[i] = room;
  }
  for (size_t i = 0; i < after.size(); ++i) {
    const int64_t bytes = after[i].bytes();
    if (bytes == 0 || OnHost(pieces.after_on, i)) continue;
    void* const room =
        staged.rooms_.emplace_back(runtime::CpuDevice().Allocate(static_cast<size_t>(bytes))).get();
    staged.back_.push_back({i, std::exchange(pieces.after[i], room), bytes});
  }
  return staged;
}

void StagedPieces::BringBack() const {
  for (const Back& back : back_) {
    Device& device = *on_host_.after_on[back.piece];
    device.CopyFromHost(on_host_.after[back.piece],
                        runtime::Tensor::Wrap(device, nullptr, back.to, {back.bytes}, DataType::kU8));
  }
}

}  // namespace cohort::parallel
