// Attention by its definition: one softmax over the keys a query sees. f64, no tiles,
// nothing shared with the CPU.
#include <algorithm>
#include <cmath>
#include <vector>

#include "comm/check.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {
namespace {

double Dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// scores -> probabilities in place; returns their log-sum-exp.
double SoftmaxInPlace(std::vector<double>& scores) {
  const double top = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& s : scores) sum += s = std::exp(s - top);
  for (double& s : scores) s /= sum;
  return top + std::log(sum);
}

}  // namespace

void ReferenceOps::Attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets,
                             double scale, const Tensor& y, const Tensor& lse) {
  const int64_t tokens = q.dim(0), heads = q.dim(1), groups = k.dim(1), width = q.dim(2);
  COHORT_CHECK(groups > 0 && heads % groups == 0, "%ld query heads over %ld key heads", heads, groups);
  const double *qs = q.data<double>(), *ks = k.data<double>(), *vs = v.data<double>();
  double *ys = y.data<double>(), *lses = lse.data<double>();
  const int32_t* starts = offsets.data<int32_t>();
  std::vector<double> p;
  for (int64_t s = 0; s + 1 < offsets.dim(0); ++s) {
    for (int64_t t = starts[s]; t < starts[s + 1]; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t g = h / (heads / groups);
        p.clear();
        for (int64_t j = starts[s]; j <= t; ++j) {
          p.push_back(scale * Dot(qs + (t * heads + h) * width, ks + (j * groups + g) * width, width));
        }
        lses[h * tokens + t] = SoftmaxInPlace(p);
        double* out = ys + (t * heads + h) * width;
        std::fill(out, out + width, 0.0);
        for (int64_t j = starts[s]; j <= t; ++j) {
          const double* row = vs + (j * groups + g) * width;
          for (int64_t c = 0; c < width; ++c) out[c] += p[j - starts[s]] * row[c];
        }
      }
    }
  }
}

void ReferenceOps::AttentionGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                                 const Tensor& y, const Tensor& lse, const Tensor& offsets, double scale,
                                 const Tensor& dq, const Tensor& dk, const Tensor& dv) {
  const int64_t tokens = q.dim(0), heads = q.dim(1), groups = k.dim(1), width = q.dim(2);
  const double *dys = dy.data<double>(), *qs = q.data<double>(), *ks = k.data<double>(),
               *vs = v.data<double>();
  const double *ys = y.data<double>(), *lses = lse.data<double>();
  double *dqs = dq.data<double>(), *dks = dk.data<double>(), *dvs = dv.data<double>();
  const int32_t* starts = offsets.data<int32_t>();
  std::fill(dqs, dqs + dq.size(), 0.0);
  std::fill(dks, dks + dk.size(), 0.0);
  std::fill(dvs, dvs + dv.size(), 0.0);
  for (int64_t s = 0; s + 1 < offsets.dim(0); ++s) {
    for (int64_t t = starts[s]; t < starts[s + 1]; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t g = h / (heads / groups), at = (t * heads + h) * width;
        const double drift = Dot(dys + at, ys + at, width);  // sum_j p_j dp_j
        for (int64_t j = starts[s]; j <= t; ++j) {
          const int64_t key = (j * groups + g) * width;
          const double p = std::exp(scale * Dot(qs + at, ks + key, width) - lses[h * tokens + t]);
          const double ds = scale * p * (Dot(dys + at, vs + key, width) - drift);
          for (int64_t c = 0; c < width; ++c) {
            dqs[at + c] += ds * ks[key + c];
            dks[key + c] += ds * qs[at + c];
            dvs[key + c] += p * dys[at + c];
          }
        }
      }
    }
  }
}

void ReferenceOps::StoreKv(const Tensor& k, const Tensor& v, const Tensor& slots, const KvPages& pages) {
  const int64_t groups = k.dim(1), width = k.dim(2), page_size = pages.page_size();
  const int32_t* slot = slots.data<int32_t>();
  for (int64_t t = 0; t < k.dim(0); ++t) {
    const int64_t page = slot[t] / page_size, place = slot[t] % page_size;
    COHORT_CHECK(page >= 0 && page < pages.keys.dim(0), "slot %d of %ld pages", slot[t], pages.keys.dim(0));
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t from = (t * groups + g) * width, to = ((page * groups + g) * page_size + place) * width;
      std::copy_n(k.data<double>() + from, width, pages.keys.data<double>() + to);
      std::copy_n(v.data<double>() + from, width, pages.values.data<double>() + to);
    }
  }
}

void ReferenceOps::PagedAttention(const Tensor& q, const KvPages& pages, const Tensor& page_table,
                                  const Tensor& query_offsets, const Tensor& context_lengths, double scale,
                                  const Tensor& y) {
  const int64_t heads = q.dim(1), width = q.dim(2), groups = pages.keys.dim(1), page_size = pages.page_size();
  const int32_t* starts = query_offsets.data<int32_t>();
  std::vector<double> p;
  for (int64_t s = 0; s < context_lengths.dim(0); ++s) {
    const int64_t length = context_lengths.data<int32_t>()[s], queries = starts[s + 1] - starts[s];
    const int32_t* table = page_table.data<int32_t>() + s * page_table.dim(1);
    const auto at = [&](int64_t j, int64_t g) {
      return ((table[j / page_size] * groups + g) * page_size + j % page_size) * width;
    };
    for (int64_t i = 0; i < queries; ++i) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t g = h / (heads / groups), row = ((starts[s] + i) * heads + h) * width;
        const int64_t seen = length - queries + i + 1;
        COHORT_CHECK(seen > 0, "sequence %ld has %ld queries, but a context of %ld", s, queries, length);
        p.clear();
        for (int64_t j = 0; j < seen; ++j) {
          p.push_back(scale * Dot(q.data<double>() + row, pages.keys.data<double>() + at(j, g), width));
        }
        SoftmaxInPlace(p);
        double* out = y.data<double>() + row;
        std::fill(out, out + width, 0.0);
        for (int64_t j = 0; j < seen; ++j) {
          const double* value = pages.values.data<double>() + at(j, g);
          for (int64_t c = 0; c < width; ++c) out[c] += p[j] * value[c];
        }
      }
    }
  }
}

}  // namespace cohort::runtime
