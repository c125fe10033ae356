#include "tools/cohort/usage_error.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/config/nearest_name.h"

namespace cohort::tools {
namespace {

// "cohort data prepare".
std::string PathOf(const CLI::App& app) {
  const CLI::App* parent = app.get_parent();
  return parent == nullptr ? app.get_name() : absl::StrCat(PathOf(*parent), " ", app.get_name());
}

std::vector<std::string> OptionsOf(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::vector<std::string> SubcommandsOf(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* subcommand : app.get_subcommands(nullptr)) {
    if (!subcommand->get_group().empty())
      names.push_back(subcommand->get_name());  // not those of our own use
  }
  return names;
}

// What is wrong with a word that `app` does not know.
std::string NotKnown(const CLI::App& app, const std::string& argument) {
  const bool is_option = absl::StartsWith(argument, "-");
  const std::string word = is_option ? argument.substr(0, argument.find('=')) : argument;
  const std::vector<std::string> subcommands = SubcommandsOf(app);
  const char* has_no = is_option             ? " has no option "
                       : subcommands.empty() ? " takes no argument "
                                             : " has no subcommand ";
  const std::string nearest = runtime::NearestName(word, is_option ? OptionsOf(app) : subcommands);
  std::string hint;
  if (!nearest.empty()) {
    hint = absl::StrCat("; the nearest is ", nearest);
  } else if (is_option && !subcommands.empty()) {
    hint = "; options of a subcommand come after its name";
  } else if (!is_option && subcommands.empty()) {
    hint = "; options begin with --, and a value with spaces is quoted";
  }
  const std::string path = PathOf(app);
  return absl::StrCat(path, has_no, word, hint, "\nRun ", path, " --help for what there is.\n");
}

// Of the first word that neither `app` nor a subcommand on the command line took; empty where there is none.
std::string UnknownWord(const CLI::App& app) {
  if (const std::vector<std::string> left = app.remaining(); !left.empty()) return NotKnown(app, left[0]);
  for (const CLI::App* subcommand : app.get_subcommands()) {
    if (std::string text = UnknownWord(*subcommand); !text.empty()) return text;
  }
  return "";
}

}  // namespace

std::string UsageError(const CLI::App* app, const CLI::Error& error) {
  const std::string unknown = UnknownWord(*app);
  return unknown.empty() ? CLI::FailureMessage::simple(app, error) : unknown;
}

}  // namespace cohort::tools
