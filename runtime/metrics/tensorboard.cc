#include "runtime/metrics/tensorboard.h"

#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "runtime/metrics/crc32c.h"

namespace cohort::runtime {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

template <typename T>
std::string Bytes(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

// The Protobuf wire format by hand, for the few fields of tensorflow/core/util/event.proto that scalars need:
// Event {double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5;}
// Summary {repeated Value value = 1;}  Value {string tag = 1; float simple_value = 2;}
enum WireType : uint8_t { kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5 };

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string Key(int field, WireType type) { return Varint(static_cast<uint64_t>(field) << 3 | type); }
std::string Delimited(int field, const std::string& bytes) {
  return absl::StrCat(Key(field, kLengthDelimited), Varint(bytes.size()), bytes);
}

std::string Event(double wall_time, int64_t step, const std::string& rest) {
  return absl::StrCat(Key(1, kFixed64), Bytes(wall_time), Key(2, kVarint),
                      Varint(static_cast<uint64_t>(step)), rest);
}

// TFRecord: length, its checksum, the data, its checksum.
std::string Record(const std::string& data) {
  const std::string length = Bytes(static_cast<uint64_t>(data.size()));
  return absl::StrCat(length, Bytes(MaskedCrc32c(length)), data, Bytes(MaskedCrc32c(data)));
}

}  // namespace

absl::StatusOr<TensorBoardWriter> TensorBoardWriter::Create(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return ErrnoStatus(error.value(), "make the folder", folder);
  char host[256] = "localhost";
  gethostname(host, sizeof(host) - 1);
  // TensorBoard takes every file with "tfevents" in its name and reads them in the order of the names.
  const double now = Now();
  const std::string path =
      absl::StrFormat("%s/events.out.tfevents.%010d.%s.%d.%06d", folder, static_cast<int64_t>(now), host,
                      getpid(), static_cast<int>((now - static_cast<int64_t>(now)) * 1e6));
  COHORT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Append(path));
  COHORT_RETURN_IF_ERROR(file.Write(Record(Event(now, 0, Delimited(3, "brain.Event:2")))));
  return TensorBoardWriter(std::move(file));
}

absl::Status TensorBoardWriter::Add(int64_t step, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {
    const std::string value =
        absl::StrCat(Delimited(1, scalar.tag), Key(2, kFixed32), Bytes(static_cast<float>(scalar.value)));
    absl::StrAppend(&summary, Delimited(1, value));
  }
  return file_.WriteWhole(Record(Event(Now(), step, Delimited(5, summary))));
}

}  // namespace cohort::runtime
