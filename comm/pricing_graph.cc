#include "comm/pricing_graph.h"

#include <algorithm>

namespace cohort::comm::pricing {

int32_t Graph::Add(Kind kind) {
  nodes_.emplace_back().kind = kind;
  return static_cast<int32_t>(nodes_.size()) - 1;
}

void Graph::Await(int32_t node, Moment before) {
  nodes_[node].from = std::max(nodes_[node].from, before.at);
  if (before.node < 0) return;
  ++nodes_[node].waits;
  const auto edge = static_cast<int32_t>(edges_.size());
  edges_.push_back({node, -1});
  Node& of = nodes_[before.node];
  (of.last < 0 ? of.first : edges_[of.last].next) = edge;
  of.last = edge;
}

Moment Graph::Later(Moment a, Moment b) {
  if (b.node < 0 && (a.node < 0 || b.at == 0)) return a.node < 0 && b.at > a.at ? b : a;
  if ((a.node < 0 && a.at == 0) || a.node == b.node) return b;
  const int32_t node = Add(Kind::kJoin);
  Await(node, a);
  Await(node, b);
  return {0, node};
}

Moment Graph::After(Moment begin, double seconds) {
  if (begin.node < 0) return {begin.at + seconds, -1};
  if (seconds == 0) return begin;
  const int32_t node = Add(Kind::kDelay);
  nodes_[node].busy = seconds;
  Await(node, begin);
  return {0, node};
}

Moment Graph::Message(size_t out, size_t in, double busy, double latency, Moment sent, Moment awaited,
                      Moment* left) {
  const int32_t node = Add(Kind::kMessage);
  Node& message = nodes_[node];
  message.counts = true;
  message.out = static_cast<uint32_t>(out);
  message.in = static_cast<uint32_t>(in);
  message.busy = busy;
  message.latency = latency;
  Await(node, sent);
  Await(node, awaited);
  if (left != nullptr) {
    *left = {0, Add(Kind::kLeft)};
    nodes_[left->node].waits = 1;
    nodes_[node].first_left = left->node;
  }
  return {0, node};
}

void Graph::Until(Moment moment) {
  if (moment.node < 0) {
    end_ = std::max(end_, moment.at);
  } else {
    nodes_[moment.node].counts = true;
  }
}

void Graph::Ready(int32_t node, double now) {
  const Node& ready = nodes_[node];
  if (ready.from > now) {  // once: `from` is not after that time then
    events_.push({ready.from, order_++, EventKind::kOther, node, /*begins=*/true});
    return;
  }
  if (ready.kind == Kind::kDelay) {
    events_.push({now + ready.busy, order_++, EventKind::kOther, node, /*begins=*/false});
  } else if (ready.kind != Kind::kMessage) {
    Over(node, now);
  } else {
    nodes_[node].number = posted_++;
    Link &out = links_[ready.out], &in = links_[ready.in];
    if (!out.busy && !in.busy) {
      Depart(node, now);
    } else {
      out.waiting.push_back(node);
      if (ready.in != ready.out) in.waiting.push_back(node);
    }
  }
}

void Graph::Over(int32_t node, double now) {
  if (nodes_[node].counts) end_ = std::max(end_, now);
  for (int32_t edge = nodes_[node].first; edge >= 0; edge = edges_[edge].next) {
    if (--nodes_[edges_[edge].to].waits == 0) Ready(edges_[edge].to, now);
  }
}

void Graph::Depart(int32_t node, double now) {
  const Node& message = nodes_[node];
  nodes_[node].gone = true;
  links_[message.out].busy = links_[message.in].busy = true;
  const double left = now + message.busy;
  events_.push({left, order_++, EventKind::kLinkFree, node, false});
  if (message.first_left >= 0) {
    events_.push({left, order_++, EventKind::kOther, message.first_left, /*begins=*/false});
  }
  events_.push({left + message.latency, order_++, EventKind::kOther, node, /*begins=*/false});
}

// What waits for links that are free now leaves in the order of asking, where its other link is free too.
void Graph::Assign(double now) {
  candidates_.clear();
  for (const uint32_t freed : freed_) {
    Link& link = links_[freed];
    while (link.head < link.waiting.size() && nodes_[link.waiting[link.head]].gone) ++link.head;
    size_t looked = 0;
    for (size_t at = link.head; at < link.waiting.size() && looked < kLookAhead; ++at) {
      if (nodes_[link.waiting[at]].gone) continue;
      candidates_.push_back(link.waiting[at]);
      ++looked;
    }
  }
  freed_.clear();
  std::sort(candidates_.begin(), candidates_.end(),
            [&](int32_t a, int32_t b) { return nodes_[a].number < nodes_[b].number; });
  for (const int32_t node : candidates_) {
    const Node& message = nodes_[node];
    if (!message.gone && !links_[message.out].busy && !links_[message.in].busy) Depart(node, now);
  }
}

double Graph::Run() {
  for (size_t node = 0; node < nodes_.size(); ++node) {
    // What others make ready in the meantime has been counted down before.
    if (nodes_[node].waits == 0) nodes_[node].waits = -1;
  }
  for (size_t node = 0; node < nodes_.size(); ++node) {
    if (nodes_[node].waits < 0) Ready(static_cast<int32_t>(node), 0);
  }
  while (!events_.empty()) {
    const Event event = events_.top();
    events_.pop();
    if (event.kind == EventKind::kOther) {
      event.begins ? Ready(event.node, event.time) : Over(event.node, event.time);
      continue;
    }
    const Node& message = nodes_[event.node];
    for (const uint32_t link : {message.out, message.in}) {
      links_[link].busy = false;
      freed_.push_back(link);
    }
    // All links that are free at this time, before any of them is given away.
    if (events_.empty() || events_.top().kind != EventKind::kLinkFree || events_.top().time > event.time) {
      Assign(event.time);
    }
  }
  return end_;
}

}  // namespace cohort::comm::pricing
