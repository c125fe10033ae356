#include "runtime/metrics/json_lines.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::runtime {
namespace {

bool Stays(const std::string& line, int64_t step) {
  const auto row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!row.is_object()) return false;
  const auto at = row.find("step");
  return at == row.end() || !at->is_number_integer() || at->get<int64_t>() <= step;
}

}  // namespace

absl::StatusOr<JsonLines> JsonLines::Open(const std::string& path, int64_t step) {
  const std::string next = path + ".next";
  std::error_code ignored;  // opening says what is wrong
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  if (std::filesystem::exists(path)) {
    std::ifstream in(path);
    std::ofstream out(next, std::ios::trunc);
    for (std::string line; step > 0 && std::getline(in, line);) {
      if (Stays(line, step)) out << line << '\n';
    }
    out.close();
    std::error_code error;
    if (out.good()) std::filesystem::rename(next, path, error);
    if (!out.good() || error) {
      std::filesystem::remove(next, error);
      return absl::UnavailableError(absl::StrCat("cannot rewrite ", path, ": is the disk full?"));
    }
  }
  COHORT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Append(path));
  return JsonLines(std::move(file));
}

absl::Status JsonLines::Write(absl::string_view object) { return file_.Write(absl::StrCat(object, "\n")); }

}  // namespace cohort::runtime
