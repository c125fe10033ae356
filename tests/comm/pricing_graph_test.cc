// The order in which messages have links, of which the prices of few messages are made.
#include "comm/pricing_graph.h"

#include <gtest/gtest.h>

namespace cohort::comm::pricing {
namespace {

// Links 0 and up; messages without a latency.
Moment Send(Graph& graph, size_t out, size_t in, double busy, Moment sent = {}) {
  return graph.Message(out, in, busy, 0, sent, {}, nullptr);
}

TEST(PricingGraph, WhoAsksFirstHasTheLinkFirst) {
  Graph graph(3);
  Send(graph, 0, 1, 4);
  Send(graph, 0, 2, 1, graph.After({}, 2));
  const Moment early = Send(graph, 0, 2, 1, graph.After({}, 1));  // said last
  graph.Until(graph.After(early, 10));
  EXPECT_DOUBLE_EQ(graph.Run(), 15);
}

TEST(PricingGraph, NobodyWaitsForOneThatCannotLeave) {
  Graph graph(4);
  Send(graph, 0, 1, 10);
  Send(graph, 2, 1, 1);  // before the next one on 2, but 1 is taken
  Send(graph, 2, 3, 5);
  EXPECT_DOUBLE_EQ(graph.Run(), 11);
}

TEST(PricingGraph, AMessageHasLeftBeforeItArrives) {
  Graph graph(2);
  Moment left;
  graph.Message(0, 1, 2, 3, {}, {}, &left);
  graph.Until(graph.After(left, 4));
  EXPECT_DOUBLE_EQ(graph.Run(), 6);
}

TEST(PricingGraph, JoinsWaitForBoth) {
  Graph graph(4);
  const Moment both = graph.Later(Send(graph, 0, 1, 3), Send(graph, 2, 3, 7));
  Send(graph, 0, 1, 1, graph.Later(both, {8}));
  EXPECT_DOUBLE_EQ(graph.Run(), 9);
  EXPECT_EQ(graph.Later({2}, {5}).at, 5);
}

}  // namespace
}  // namespace cohort::comm::pricing
