// A folder of a test's own, removed with it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "comm/check.h"

namespace cohort {

class TempFolder {
 public:
  TempFolder() : TempFolder(std::filesystem::temp_directory_path()) {}
  explicit TempFolder(const std::filesystem::path& parent) {
    std::string pattern = (parent / "cohort-test-XXXXXX").string();
    COHORT_CHECK(mkdtemp(pattern.data()) != nullptr, "no folder %s", pattern.c_str());
    path_ = pattern;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  // A file system in memory where there is one, for tests of much that is made durable.
  static std::filesystem::path Memory() {
    return std::filesystem::exists("/dev/shm") ? "/dev/shm" : std::filesystem::temp_directory_path();
  }

  const std::string& path() const { return path_; }
  // Of a file in it, whether there or not.
  std::string Path(const std::string& name) const { return path_ + "/" + name; }
  // Writes a file, with the folders it lies in, and returns its path.
  std::string Write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(Path(name)).parent_path());
    std::ofstream(Path(name), std::ios::binary) << text;
    return Path(name);
  }

 private:
  std::string path_;
};

}  // namespace cohort
