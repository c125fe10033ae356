// Attention and its gradients against the f64 reference, and the reference against finite differences.
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

struct Case {
  std::vector<int32_t> lengths;
  int64_t heads, groups, width;
};

const Case kCases[] = {
    {{}, 4, 2, 64},        {{0, 1, 0}, 2, 1, 8}, {{1}, 1, 1, 128},     {{5, 0, 33, 1, 64}, 4, 4, 8},
    {{17, 130}, 8, 2, 64}, {{300}, 2, 1, 80},    {{37, 95}, 6, 2, 96}, {{290, 3}, 3, 1, 128},
    {{257}, 2, 2, 40},     {{40}, 16, 1, 7},
};

class AttentionTest : public OpsTest {
 protected:
  struct Inputs {
    Twin q, k, v, dy, offsets;
    int64_t tokens = 0;
  };
  Inputs Make(const Case& c, DataType dtype) {
    std::vector<int32_t> offsets = {0};
    for (int32_t length : c.lengths) offsets.push_back(offsets.back() + length);
    const int64_t tokens = offsets.back();
    return {Random({tokens, c.heads, c.width}, dtype),
            Random({tokens, c.groups, c.width}, dtype),
            Random({tokens, c.groups, c.width}, dtype),
            Random({tokens, c.heads, c.width}, dtype),
            FromIndices({static_cast<int64_t>(offsets.size())}, offsets),
            tokens};
  }
  static int32_t Longest(const Case& c) {
    return c.lengths.empty() ? 0 : *std::max_element(c.lengths.begin(), c.lengths.end());
  }
  static double ScaleOf(const Case& c) { return 1.3 / std::sqrt(static_cast<double>(c.width)); }
};

TEST_P(AttentionTest, ForwardMatchesTheReference) {
  for (DataType dtype : kComputeTypes) {
    for (const Case& c : kCases) {
      const Inputs in = Make(c, dtype);
      const double scale = ScaleOf(c);
      const Twin y = Output(in.q.tested.shape(), dtype), lse = Output({c.heads, in.tokens}, DataType::kF32);
      reference().Attention(in.q.reference, in.k.reference, in.v.reference, in.offsets.reference, scale,
                            y.reference, lse.reference);
      for (int threads : thread_counts()) {
        SetCpuThreads(threads);
        tested().Attention(in.q.tested, in.k.tested, in.v.tested, in.offsets.tested, scale, y.tested,
                           lse.tested);
        ExpectTwin(y, dtype, "y");
        ExpectTwin(lse, dtype, "lse");
      }
    }
  }
}

TEST_P(AttentionTest, GradientsMatchTheReference) {
  for (DataType dtype : kComputeTypes) {
    for (const Case& c : kCases) {
      const Inputs in = Make(c, dtype);
      const double scale = ScaleOf(c);
      const Twin y = Output(in.q.tested.shape(), dtype), lse = Output({c.heads, in.tokens}, DataType::kF32);
      const Twin dq = Output(in.q.tested.shape(), dtype), dk = Output(in.k.tested.shape(), dtype);
      const Twin dv = Output(in.k.tested.shape(), dtype);
      reference().Attention(in.q.reference, in.k.reference, in.v.reference, in.offsets.reference, scale,
                            y.reference, lse.reference);
      reference().AttentionGrad(in.dy.reference, in.q.reference, in.k.reference, in.v.reference, y.reference,
                                lse.reference, in.offsets.reference, scale, dq.reference, dk.reference,
                                dv.reference);
      for (int threads : thread_counts()) {
        SetCpuThreads(threads);
        tested().Attention(in.q.tested, in.k.tested, in.v.tested, in.offsets.tested, scale, y.tested,
                           lse.tested);
        tested().AttentionGrad(in.dy.tested, in.q.tested, in.k.tested, in.v.tested, y.tested, lse.tested,
                               in.offsets.tested, scale, dq.tested, dk.tested, dv.tested);
        const std::string what = "width " + std::to_string(c.width) + ", tokens " + std::to_string(in.tokens);
        if (Longest(c) > 1) {
          ExpectTwin(dq, dtype, ("dq, " + what).c_str());
          ExpectTwin(dk, dtype, ("dk, " + what).c_str());
        } else {  // a softmax over one key has no gradient: no scale to measure errors by
          for (double x : ToHost(dq.tested)) EXPECT_NEAR(x, 0, Tolerance(dtype)) << what;
          for (double x : ToHost(dk.tested)) EXPECT_NEAR(x, 0, Tolerance(dtype)) << what;
        }
        ExpectTwin(dv, dtype, ("dv, " + what).c_str());
      }
    }
  }
}

// A sequence longer than a unit of rows and many blocks of keys, on few heads.
TEST_P(AttentionTest, LongSequencesMatchTheReference) {
  const Case c = {{emulated() ? 700 : 1300}, 2, 1, 16};
  for (DataType dtype : kComputeTypes) {
    const Inputs in = Make(c, dtype);
    const Twin y = Output(in.q.tested.shape(), dtype), lse = Output({c.heads, in.tokens}, DataType::kF32);
    const Twin dq = Output(in.q.tested.shape(), dtype), dk = Output(in.k.tested.shape(), dtype);
    const Twin dv = Output(in.k.tested.shape(), dtype);
    reference().Attention(in.q.reference, in.k.reference, in.v.reference, in.offsets.reference, 0.25,
                          y.reference, lse.reference);
    reference().AttentionGrad(in.dy.reference, in.q.reference, in.k.reference, in.v.reference, y.reference,
                              lse.reference, in.offsets.reference, 0.25, dq.reference, dk.reference,
                              dv.reference);
    tested().Attention(in.q.tested, in.k.tested, in.v.tested, in.offsets.tested, 0.25, y.tested, lse.tested);
    tested().AttentionGrad(in.dy.tested, in.q.tested, in.k.tested, in.v.tested, y.tested, lse.tested,
                           in.offsets.tested, 0.25, dq.tested, dk.tested, dv.tested);
    ExpectTwin(y, dtype, "y");
    ExpectTwin(lse, dtype, "lse");
    ExpectTwin(dq, dtype, "dq");
    ExpectTwin(dk, dtype, "dk");
    ExpectTwin(dv, dtype, "dv");
  }
}

// Scores of a thousand and more neither overflow nor lose the winner.
TEST_P(AttentionTest, LargeScoresStayFinite) {
  for (DataType dtype : kComputeTypes) {
    const Case c = {{70}, 2, 1, 64};
    const Inputs in = Make(c, dtype);
    const Twin y = Output(in.q.tested.shape(), dtype), lse = Output({c.heads, in.tokens}, DataType::kF32);
    reference().Attention(in.q.reference, in.k.reference, in.v.reference, in.offsets.reference, 64,
                          y.reference, lse.reference);
    tested().Attention(in.q.tested, in.k.tested, in.v.tested, in.offsets.tested, 64, y.tested, lse.tested);
    // f32 scores of 2000 carry errors of 1e-4, which the exponential keeps.
    EXPECT_LT(RelativeError(ToHost(y.tested), ToHost(y.reference)), 1e-2);
    ExpectTwin(lse, dtype, "lse");
  }
}

TEST_P(AttentionTest, BitsDependNeitherOnTheRunNorOnTheThreads) {
  for (DataType dtype : kComputeTypes) {
    const Case c = {{70, 210}, 4, 2, 64};
    const Inputs in = Make(c, dtype);
    Twin first_y, first_dk;
    for (int threads : {1, 1, 2, 3}) {
      SetCpuThreads(threads);
      const Twin y = Output(in.q.tested.shape(), dtype), lse = Output({c.heads, in.tokens}, DataType::kF32);
      const Twin dq = Output(in.q.tested.shape(), dtype), dk = Output(in.k.tested.shape(), dtype);
      const Twin dv = Output(in.k.tested.shape(), dtype);
      tested().Attention(in.q.tested, in.k.tested, in.v.tested, in.offsets.tested, 0.125, y.tested,
                         lse.tested);
      tested().AttentionGrad(in.dy.tested, in.q.tested, in.k.tested, in.v.tested, y.tested, lse.tested,
                             in.offsets.tested, 0.125, dq.tested, dk.tested, dv.tested);
      if (!first_y.tested.defined()) {
        first_y = y;
        first_dk = dk;
      }
      ExpectSameBits(first_y.tested, y.tested, "y");
      ExpectSameBits(first_dk.tested, dk.tested, "dk");
    }
  }
}

// d(sum of dy y) / dx by central differences in f64, for every element.
TEST_P(AttentionTest, ReferenceGradientsMatchFiniteDifferences) {
  const Case c = {{3, 0, 5}, 4, 2, 3};
  const Inputs in = Make(c, DataType::kF32);
  const double scale = 0.7, step = 1e-5;
  const Twin y = Output(in.q.tested.shape(), DataType::kF32),
             lse = Output({c.heads, in.tokens}, DataType::kF32);
  const Tensor grads[] = {Output(in.q.tested.shape(), DataType::kF32).reference,
                          Output(in.k.tested.shape(), DataType::kF32).reference,
                          Output(in.k.tested.shape(), DataType::kF32).reference};
  const auto loss = [&] {
    reference().Attention(in.q.reference, in.k.reference, in.v.reference, in.offsets.reference, scale,
                          y.reference, lse.reference);
    double sum = 0;
    for (int64_t i = 0; i < y.reference.size(); ++i) {
      sum += y.reference.data<double>()[i] * in.dy.reference.data<double>()[i];
    }
    return sum;
  };
  loss();
  reference().AttentionGrad(in.dy.reference, in.q.reference, in.k.reference, in.v.reference, y.reference,
                            lse.reference, in.offsets.reference, scale, grads[0], grads[1], grads[2]);
  const Tensor inputs[] = {in.q.reference, in.k.reference, in.v.reference};
  for (int which = 0; which < 3; ++which) {
    for (int64_t i = 0; i < inputs[which].size(); ++i) {
      double& x = inputs[which].data<double>()[i];
      const double before = x;
      x = before + step;
      const double up = loss();
      x = before - step;
      const double down = loss();
      x = before;
      EXPECT_NEAR(grads[which].data<double>()[i], (up - down) / (2 * step), 1e-7)
          << "input " << which << ", " << i;
    }
  }
}

// Every instruction set that this machine has: the level is read once in a process, so each
// takes one of its own.
TEST(AttentionIsaTest, EveryInstructionSetPasses) {
  for (const std::string isa : {"portable", "avx512"}) {
    const std::string command =
        "COHORT_CPU_ISA=" + isa + " /proc/" + std::to_string(getpid()) +
        "/exe --gtest_brief=1 --gtest_filter='Ops/*Attention*/cpu:Skinny*:Ops/Moe*/cpu'";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
  }
}

COHORT_ON_EVERY_DEVICE(AttentionTest);

}  // namespace
}  // namespace cohort::runtime
