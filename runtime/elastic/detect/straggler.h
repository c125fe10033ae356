// Who computes slower than the others, and stays so: from the times that members tell of their steps. Pure: no clock,
// no processes.
//
// A step is judged when all have told of it. The evidence of a member is the logarithm of its time over the median of its
// peers: the members of its stage, whose work is the same, or, where it has none there and all weights are known, everybody's
// time over weight; otherwise its own past, less what has changed for all. Evidence above half of what is looked for adds
// up, and below it is taken off again (Page, Continuous inspection schemes, Biometrika 41, 1954): a member at half its speed is
// named after five to ten steps, and noise, which goes both ways, is not. How much is needed grows with the scatter of
// times, from one step to the next, over all members (a median: neither spikes nor the slow ones themselves count).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace cohort::runtime::elastic {

// A member's part of a step, as the mesh has it.
struct WorkShare {
  int stage = 0;      // members of the same one have the same work
  double weight = 0;  // computing in any unit that all share; 0: unknown

  friend bool operator==(const WorkShare&, const WorkShare&) = default;
};

struct Straggler {
  int64_t member = 0;
  int64_t step = 0;    // at which it was named
  double factor = 1;   // of its time over what it should be; the median of the newest steps
  double seconds = 0;  // its own
  bool past = false;   // compared with its own past, as it has no peers
};
// "computes 2.1 times as long as the others, 0.31 s a step".
std::string DebugString(const Straggler& straggler);

class StragglerDetector {
 public:
  // A member's computing time of a step. Steps of a member come in order; repeated ones are ignored.
  void Add(int64_t member, const WorkShare& share, int64_t step, double seconds);
  void Forget(int64_t member);
  // Another mesh: nobody's times are what they were.
  void Reset();

  struct Change {
    Straggler straggler;
    bool ended = false;  // it is slow no more
  };
  // Judges what can be judged by now: verdicts that have begun or ended, each once.
  std::vector<Change> Judge();

  // Null: it is not slow. Stays until the next Judge, Forget or Reset.
  const Straggler* Find(int64_t member) const;
  // Who is slow now, by member.
  std::map<int64_t, Straggler> Stragglers() const;

 private:
  struct Told {
    int64_t step;
    double seconds;
  };
  struct Member {
    WorkShare share = {};
    int64_t newest = 0;
    std::deque<Told> pending;
    int judged = 0;               // steps
    double slow = 0, fine = 0;    // evidence, each where it counts
    double gathering = 0;         // seconds of the steps that have given it
    std::deque<double> evidence;  // of the newest steps
    std::deque<double> past;      // over_all of steps at which it was not slow
    bool is_slow = false;
    Straggler verdict;
  };
  struct Seen {
    Member* member;
    int64_t id;
    double log_seconds;
    double evidence = 0;
    double over_all = 0;  // of log_seconds, over the median of all others, of whatever stage
    bool known = false, by_past = false;
  };

  void JudgeStep(int64_t step, std::vector<Change>& changes);
  void Compare(std::vector<Seen>& seen) const;
  double EvidenceNeeded(const std::vector<Seen>& seen);

  std::map<int64_t, Member> members_;
  int64_t judged_ = 0;          // the last step that was
  std::deque<double> scatter_;  // of the newest steps
};

}  // namespace cohort::runtime::elastic
