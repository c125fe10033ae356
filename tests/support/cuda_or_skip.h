// For tests that need a GPU: they skip, saying why, where there is none.
#pragma once

#include <gtest/gtest.h>

#include "runtime/device/cuda/open_cuda_device.h"

// Declares `device`, a runtime::Device& of CUDA, or skips the test. In the body of a test, or of SetUp.
#define COHORT_CUDA_OR_SKIP(device)                                                \
  const auto device##_opened_ = ::cohort::runtime::OpenCudaDevice(0);              \
  if (!device##_opened_.ok()) GTEST_SKIP() << device##_opened_.status().message(); \
  ::cohort::runtime::Device& device = **device##_opened_
