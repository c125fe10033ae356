// The format: TFRecord framing (length, masked CRC of the length, data, masked CRC of the data; all
// little-endian) of Event messages (tensorflow/core/util/event.proto): wall_time = 1 (double), step = 2
// (int64), file_version = 3 (string), summary = 5 {value = 1 {tag = 1 (string), simple_value = 2 (float)}}.
#include "runtime/metrics/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_format.h"
#include "comm/check.h"

namespace cohort::runtime {
namespace {

static_assert(std::endian::native == std::endian::little, "records are written as they lie in memory");

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[i] = crc;
  }
  return table;
}

template <typename T>
void AppendRaw(T value, std::string& out) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Protobuf wire format: a varint, and the key of a field.
void AppendVarint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
void AppendKey(uint64_t field, WireType type, std::string& out) { AppendVarint(field << 3 | type, out); }

void AppendBytes(uint64_t field, absl::string_view bytes, std::string& out) {
  AppendKey(field, kBytes, out);
  AppendVarint(bytes.size(), out);
  out.append(bytes.data(), bytes.size());
}

std::string Record(absl::string_view data) {
  std::string record;
  AppendRaw<uint64_t>(data.size(), record);
  AppendRaw<uint32_t>(MaskedCrc32c(record), record);
  record.append(data.data(), data.size());
  AppendRaw<uint32_t>(MaskedCrc32c(data), record);
  return record;
}

std::string EventAt(absl::Time time) {
  std::string event;
  AppendKey(1, kFixed64, event);
  AppendRaw<double>(absl::ToDoubleSeconds(time - absl::UnixEpoch()), event);
  return event;
}

}  // namespace

uint32_t MaskedCrc32c(absl::string_view data) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  uint32_t crc = 0xffffffffu;
  for (const char c : data) crc = kTable[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ (crc >> 8);
  crc ^= 0xffffffffu;
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

absl::StatusOr<TensorBoardWriter> TensorBoardWriter::Create(const std::string& folder) {
  char host[256] = "localhost";
  gethostname(host, sizeof(host) - 1);
  const absl::Time now = absl::Now();
  std::error_code ignored;  // opening the file says what is wrong
  std::filesystem::create_directories(folder, ignored);
  COHORT_ASSIGN_OR_RETURN(OutputFile file,
                          OutputFile::Append(absl::StrFormat("%s/events.out.tfevents.%010d.%s.%d", folder,
                                                             absl::ToUnixSeconds(now), host, getpid())));
  std::string event = EventAt(now);
  AppendBytes(3, "brain.Event:2", event);
  COHORT_RETURN_IF_ERROR(file.Write(Record(event)));
  return TensorBoardWriter(std::move(file));
}

absl::Status TensorBoardWriter::AddScalars(int64_t step,
                                           absl::Span<const std::pair<absl::string_view, float>> scalars,
                                           absl::Time time) {
  std::string summary;
  for (const auto& [tag, value] : scalars) {
    std::string entry;
    AppendBytes(1, tag, entry);
    AppendKey(2, kFixed32, entry);
    AppendRaw<float>(value, entry);
    AppendBytes(1, entry, summary);
  }
  std::string event = EventAt(time);
  AppendKey(2, kVarint, event);
  AppendVarint(static_cast<uint64_t>(step), event);
  AppendBytes(5, summary, event);
  return file_.Write(Record(event));
}

}  // namespace cohort::runtime
