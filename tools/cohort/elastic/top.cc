// cohort top: the members of an elastic job, its mesh and what happened, live.
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/client.h"
#include "tools/cohort/command.h"
#include "tools/cohort/elastic/own_coordinator.h"
#include "tools/cohort/elastic/top_screen.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

constexpr absl::Duration kFirstAnswer = absl::Seconds(5);
constexpr absl::Duration kAnswer = absl::Seconds(1);
constexpr absl::Duration kLook = absl::Milliseconds(50);  // at signals and the size of the terminal
constexpr int kPlainHeight = 1 << 20;
constexpr int kPlainWidth = 1 << 10;

struct TopFlags {
  std::string coordinator, leave, reason = "asked by cohort top";
  bool once = false, json = false;
  double interval = 1;
  int events = 16;
};

struct Size {
  int width = 80, height = 24;
  friend bool operator==(const Size&, const Size&) = default;
};

Size TerminalSize() {
  winsize size = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return {};
  return {size.ws_col, size.ws_row};
}

// The other screen of the terminal, without a cursor; its end brings back what was there.
class FullScreen {
 public:
  FullScreen() { Write("\x1b[?1049h\x1b[?25l"); }
  FullScreen(const FullScreen&) = delete;
  ~FullScreen() { Write("\x1b[?25h\x1b[?1049l"); }

  void Draw(const std::vector<std::string>& lines) {
    // In one write, over what is there: it does not flicker.
    std::string text = "\x1b[H";
    for (size_t i = 0; i < lines.size(); ++i) absl::StrAppend(&text, i > 0 ? "\r\n" : "", lines[i], "\x1b[K");
    Write(text + "\x1b[J");
  }

 private:
  static void Write(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }
};

void Print(const std::vector<std::string>& lines) {
  for (const std::string& line : lines) std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

class Top {
 public:
  Top(cluster::Client& client, const TopFlags& flags) : client_(client), flags_(flags) {
    view_.coordinator = flags.coordinator;
  }

  absl::Status Run(const std::atomic<bool>& stop) {
    // Who has never answered is a wrong address, who answers no more is away.
    COHORT_RETURN_IF_ERROR(Ask(kFirstAnswer));
    if (flags_.once) {
      if (flags_.json) {
        std::printf("%s\n", TopJson(view_).c_str());
      } else {
        const bool terminal = isatty(STDOUT_FILENO) != 0;
        Print(TopScreen(view_, terminal ? TerminalSize().width : kPlainWidth, kPlainHeight));
      }
      return absl::OkStatus();
    }
    if (flags_.json || isatty(STDOUT_FILENO) == 0) return RunPlain(stop);
    {
      FullScreen screen;
      do {
        Size size = TerminalSize();
        screen.Draw(TopScreen(view_, size.width, size.height));
        WaitUntil(absl::Now() + absl::Seconds(flags_.interval), stop, [&] {
          if (size == TerminalSize()) return;
          size = TerminalSize();
          screen.Draw(TopScreen(view_, size.width, size.height));
        });
        if (!stop) Look();
      } while (!stop);
    }
    // What was seen last stays.
    const Size size = TerminalSize();
    Print(TopScreen(view_, size.width, size.height - 1));
    return absl::OkStatus();
  }

 private:
  absl::Status Ask(absl::Duration patience) {
    COHORT_ASSIGN_OR_RETURN(view_.job, client_.Describe(flags_.events, absl::Now() + patience));
    heard_ = absl::Now();
    view_.away_seconds = -1;
    if (view_.job.epoch().arrangement() != arrangement_) {
      arrangement_ = view_.job.epoch().arrangement();
      view_.mesh = MeshWords(arrangement_);
    }
    return absl::OkStatus();
  }

  // What is not answered is shown.
  void Look() {
    if (!Ask(kAnswer).ok()) view_.away_seconds = absl::ToDoubleSeconds(absl::Now() - heard_);
  }

  template <typename Meanwhile>
  static void WaitUntil(absl::Time until, const std::atomic<bool>& stop, const Meanwhile& meanwhile) {
    while (!stop && absl::Now() < until) {
      absl::SleepFor(std::min(kLook, until - absl::Now()));
      meanwhile();
    }
  }

  // For a log: what is new, and where it stands.
  absl::Status RunPlain(const std::atomic<bool>& stop) {
    uint64_t told = 0;
    bool was_away = false;
    for (;;) {
      const bool away = view_.away_seconds >= 0;
      if (flags_.json) {
        std::printf("%s\n", TopJson(view_).c_str());
      } else {
        for (const v1::Event& event : view_.job.events()) {
          if (event.revision() > told) std::printf("%s\n", EventLine(event).c_str());
        }
        if (!away || !was_away) std::printf("%s\n", TopLine(view_).c_str());
        told = std::max(told, view_.job.last_revision());
      }
      was_away = away;
      // Whoever read it is gone.
      if (std::fflush(stdout) != 0) return absl::OkStatus();
      WaitUntil(absl::Now() + absl::Seconds(flags_.interval), stop, [] {});
      if (stop) return absl::OkStatus();
      Look();
    }
  }

  cluster::Client& client_;
  const TopFlags& flags_;
  TopView view_;
  std::string arrangement_;
  absl::Time heard_ = absl::InfinitePast();
};

absl::Status RunTop(const TopFlags& flags) {
  const std::atomic<bool>* stop = StopRequested();  // before the first thread
  // The client's own lines would be written over the screen, which says the same.
  spdlog::set_level(spdlog::level::off);
  cluster::ClientOptions options;
  COHORT_ASSIGN_OR_RETURN(options.coordinator, CoordinatorAddress(flags.coordinator));
  COHORT_ASSIGN_OR_RETURN(const auto client, cluster::Client::Create(options));
  if (!flags.leave.empty()) {
    COHORT_RETURN_IF_ERROR(client->RequestLeave(flags.leave, flags.reason, absl::Now() + kFirstAnswer));
    std::printf("%s is asked to leave at its next step boundary\n", flags.leave.c_str());
    return absl::OkStatus();
  }
  return Top(*client, flags).Run(*stop);
}

}  // namespace

void AddTop(CLI::App& app, const Selected& selected) {
  CLI::App* top = app.add_subcommand(
      "top", "Show an elastic job live: members, mesh, speed, events; or ask a member to leave it");
  const auto flags = std::make_shared<TopFlags>();
  top->add_option("--coordinator", flags->coordinator,
                  "HOST:PORT of the job's coordinator, or the output folder of the job that started one")
      ->required();
  top->add_flag("--once", flags->once, "Print one screen and end");
  top->add_flag("--json", flags->json, "Objects instead of a screen: one, or one a line every interval");
  top->add_option("--interval", flags->interval, "Seconds between two looks")
      ->check(CLI::Range(0.05, 3600.0))
      ->capture_default_str();
  top->add_option("--events", flags->events, "The newest so many events are asked for")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  top->add_option("--leave", flags->leave,
                  "Ask the member of this name to leave: it gives its state away, and the others go on");
  top->add_option("--reason", flags->reason, "Told to that member and in the events")->capture_default_str();
  top->callback([=] { selected([=] { return RunTop(*flags); }); });
}

}  // namespace cohort::tools
