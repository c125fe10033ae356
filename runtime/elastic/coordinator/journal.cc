#include "runtime/elastic/coordinator/journal.h"

#include <cstring>

#include "absl/strings/strip.h"

namespace cohort::cluster {
namespace {

constexpr absl::string_view kEtcd = "etcd://";

}  // namespace

bool IsFolder(const std::string& state) { return !absl::StartsWith(state, kEtcd); }

absl::StatusOr<std::unique_ptr<Journal>> OpenJournal(const std::string& state) {
  absl::string_view place = state;
  if (absl::ConsumePrefix(&place, kEtcd)) return OpenEtcdJournal(std::string(place));
  return OpenFileJournal(state);
}

std::string PackRecords(absl::Span<const std::string> records) {
  std::string text;
  for (const std::string& record : records) {
    const auto length = static_cast<uint32_t>(record.size());
    text.append(reinterpret_cast<const char*>(&length), sizeof(length));
    text.append(record);
  }
  return text;
}

bool UnpackRecords(absl::string_view text, std::vector<std::string>& records) {
  while (!text.empty()) {
    uint32_t length = 0;
    if (text.size() < sizeof(length)) return false;
    std::memcpy(&length, text.data(), sizeof(length));
    text.remove_prefix(sizeof(length));
    if (text.size() < length) return false;
    records.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace cohort::cluster
