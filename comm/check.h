// COHORT_CHECK is for invariants of our own code: it aborts. What the outside world can cause is a Status, which
// COHORT_RETURN_IF_ERROR and COHORT_ASSIGN_OR_RETURN pass on.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"

// Aborts with the place and the message (printf style) where the condition does not hold.
#define COHORT_CHECK(condition, ...)                                                          \
  do {                                                                                        \
    if (!(condition)) [[unlikely]] {                                                          \
      std::fprintf(stderr, "%s:%d: broken invariant (%s): ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                                      \
      std::fputc('\n', stderr);                                                               \
      std::abort();                                                                           \
    }                                                                                         \
  } while (0)

// Returns from the enclosing function with the status where it is not OK.
#define COHORT_RETURN_IF_ERROR(expression)                                  \
  do {                                                                      \
    if (absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (0)

#define COHORT_CONCAT_INNER_(a, b) a##b
#define COHORT_CONCAT_(a, b) COHORT_CONCAT_INNER_(a, b)
// COHORT_ASSIGN_OR_RETURN(auto x, F()): x = *F(), or returns F()'s status.
#define COHORT_ASSIGN_OR_RETURN(lhs, expression)                                                             \
  auto COHORT_CONCAT_(result_, __LINE__) = (expression);                                                     \
  if (!COHORT_CONCAT_(result_, __LINE__).ok()) return std::move(COHORT_CONCAT_(result_, __LINE__)).status(); \
  lhs = *std::move(COHORT_CONCAT_(result_, __LINE__))
