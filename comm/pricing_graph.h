// What waits for what, as the patterns of pricing_clock.h say it, run in the order of time: what asks for a link first
// has it first, as in the simulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <queue>
#include <vector>

namespace cohort::comm::pricing {

// When something is over: at a time, or, of a node of a graph, when that is.
struct Moment {
  double at = 0;
  int32_t node = -1;
};

class Graph {
 public:
  // Links are numbered by who uses them; each carries one message at a time.
  explicit Graph(size_t links) : links_(links) {}

  size_t size() const { return nodes_.size(); }

  // Over when both are.
  Moment Later(Moment a, Moment b);
  // So many seconds after `begin`.
  Moment After(Moment begin, double seconds);
  // Takes its links for `busy` seconds, from when both ends are there and both links are free, and is there `latency`
  // after that. `left`, where asked for: when it has let go of them.
  Moment Message(size_t out, size_t in, double busy, double latency, Moment sent, Moment awaited,
                 Moment* left);
  // What ends then counts for the end, as every message does.
  void Until(Moment moment);

  // Seconds from the beginning to the end of everything.
  double Run();

 private:
  // Messages that wait for a link and could leave at once, of which this many of the first are looked at.
  static constexpr size_t kLookAhead = 64;
  enum class Kind : uint8_t { kJoin, kDelay, kMessage, kLeft };
  struct Edge {
    int32_t to, next;
  };
  struct Node {
    Kind kind;
    bool counts = false, gone = false;  // for the end; from its link's queue
    int32_t waits = 0;                  // nodes that are not over
    int32_t first = -1, last = -1;      // edges to what waits for it
    int32_t first_left = -1;            // to its node of kLeft
    uint32_t out = 0, in = 0;
    double from = 0;  // not before
    double busy = 0, latency = 0;
    uint64_t number = 0;  // in the order in which messages ask for their links
  };
  struct Link {
    bool busy = false;
    size_t head = 0;
    std::vector<int32_t> waiting;
  };
  enum class EventKind : uint8_t { kLinkFree, kOther };
  struct Event {
    double time;
    uint64_t order;
    EventKind kind;
    int32_t node;
    bool begins;  // as opposed to being over
    // Of what happens at one time, links are freed first.
    bool operator<(const Event& other) const {
      if (time != other.time) return time > other.time;
      return kind != other.kind ? other.kind == EventKind::kLinkFree : order > other.order;
    }
  };

  int32_t Add(Kind kind);
  void Await(int32_t node, Moment before);
  void Ready(int32_t node, double now);
  void Over(int32_t node, double now);
  void Depart(int32_t node, double now);
  void Assign(double now);

  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
  std::vector<Link> links_;
  std::priority_queue<Event> events_;
  std::vector<uint32_t> freed_;
  std::vector<int32_t> candidates_;
  uint64_t order_ = 0, posted_ = 0;
  double end_ = 0;
};

}  // namespace cohort::comm::pricing
