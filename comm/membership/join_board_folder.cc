// A join board in a folder: NAME.post and NAME.answer.
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <tuple>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/membership/join_board.h"

namespace cohort::comm {
namespace {

namespace fs = std::filesystem;

class Folder : public JoinBoard {
 public:
  explicit Folder(std::string folder) : folder_(std::move(folder)) {}

  absl::Status Post(const std::string& name, const std::string& text) override {
    return Write(Path(name, kPost), text);
  }

  absl::Status Withdraw(const std::string& name) override {
    std::error_code error;
    for (const char* suffix : {kPost, kAnswer}) fs::remove(Path(name, suffix), error);
    if (error) return absl::UnavailableError(absl::StrCat("cannot remove a post in ", folder_));
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<std::string>> Answered(const std::string& name) override {
    return Read(Path(name, kAnswer));
  }

  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Waiting() override {
    std::vector<std::tuple<fs::file_time_type, std::string, std::string>> found;
    std::error_code error;
    for (fs::directory_iterator it(folder_, error), end; !error && it != end; it.increment(error)) {
      const fs::path path = it->path();
      std::string name;
      if (path.extension() != kPost || !absl::WebSafeBase64Unescape(path.stem().string(), &name)) continue;
      if (std::error_code none; fs::exists(Path(name, kAnswer), none)) continue;
      std::error_code gone;  // it may be withdrawn just now
      const auto time = fs::last_write_time(path, gone);
      const std::optional<std::string> text = Read(path);
      if (!gone && text.has_value()) found.emplace_back(time, name, *text);
    }
    if (error && error != std::errc::no_such_file_or_directory) {
      return absl::UnavailableError(
          absl::StrCat("cannot list the join board ", folder_, ": ", error.message()));
    }
    std::sort(found.begin(), found.end());
    std::vector<std::pair<std::string, std::string>> posts;
    for (auto& [time, name, text] : found) posts.emplace_back(std::move(name), std::move(text));
    return posts;
  }

  absl::Status Answer(const std::string& name, const std::string& text) override {
    return Write(Path(name, kAnswer), text);
  }

 private:
  static constexpr const char* kPost = ".post";
  static constexpr const char* kAnswer = ".answer";

  std::string Path(const std::string& name, const char* suffix) const {
    return absl::StrCat(folder_, "/", absl::WebSafeBase64Escape(name), suffix);
  }

  static std::optional<std::string> Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return std::nullopt;
    std::ostringstream text;
    text << file.rdbuf();
    return std::move(text).str();
  }

  // Readers see the whole text or none: it is renamed into place.
  absl::Status Write(const std::string& path, const std::string& text) const {
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error) {
      return absl::UnavailableError(
          absl::StrCat("cannot make the join board ", folder_, ": ", error.message()));
    }
    const std::string draft = absl::StrCat(path, ".draft-", getpid());
    {
      std::ofstream file(draft, std::ios::binary);
      file << text;
      file.close();
      if (!file) return absl::UnavailableError(absl::StrCat("cannot write ", draft));
    }
    if (rename(draft.c_str(), path.c_str()) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot rename ", draft));
    }
    return absl::OkStatus();
  }

  const std::string folder_;
};

}  // namespace

std::shared_ptr<JoinBoard> FolderJoinBoard(const std::string& folder) {
  return std::make_shared<Folder>(folder);
}

}  // namespace cohort::comm
