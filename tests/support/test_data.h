// Where tests find published models and tokenizers.
#pragma once

#include <cstdlib>
#include <string>

#include "gtest/gtest.h"

namespace cohort {

// The folder that COHORT_TEST_DATA names, or "" where it is unset.
inline std::string TestData() {
  const char* folder = std::getenv("COHORT_TEST_DATA");
  return folder == nullptr ? "" : folder;
}

}  // namespace cohort

// At the beginning of a test or a fixture's SetUp.
#define COHORT_SKIP_WITHOUT_TEST_DATA() \
  if (cohort::TestData().empty()) GTEST_SKIP() << "COHORT_TEST_DATA is unset"
