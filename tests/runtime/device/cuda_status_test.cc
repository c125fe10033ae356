// Errors of CUDA and cuBLAS as statuses. Needs the toolkit, but no GPU.
#ifdef COHORT_HAVE_CUDA

#include "runtime/device/cuda/cuda_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace cohort::runtime {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Words(const absl::Status& status) { return std::string(status.message()); }

TEST(CudaStatusTest, NamesTheCallTheTensorAndWhatToDo) {
  const Tensor x = Tensor::Zeros(CpuDevice(), {4, 8}, DataType::kBF16);
  EXPECT_TRUE(CudaStatus(cudaSuccess, "cudaMemcpyAsync").ok());
  const absl::Status memory = CudaStatus(cudaErrorMemoryAllocation, "cudaMallocFromPoolAsync", NamesOf({&x}));
  EXPECT_EQ(memory.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Words(memory), AllOf(HasSubstr("cudaMallocFromPoolAsync of bf16[4,8] on cpu: "),
                                   HasSubstr("cudaErrorMemoryAllocation"), HasSubstr("use smaller batches")));
  EXPECT_EQ(CudaStatus(cudaErrorNoDevice, "cudaSetDevice").code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Words(CudaStatus(cudaErrorInvalidValue, "cudaEventRecord")), HasSubstr("cudaEventRecord: "));
}

// Also that the library is found, whose words these are.
TEST(CudaStatusTest, CublasHasItsOwnNames) {
  EXPECT_TRUE(CublasStatus(CUBLAS_STATUS_SUCCESS, "cublasLtMatmul").ok());
  const absl::Status status = CublasStatus(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul", "f32[2] on cuda:0");
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Words(status), AllOf(HasSubstr("cublasLtMatmul of f32[2] on cuda:0: "),
                                   HasSubstr("CUBLAS_STATUS_INVALID_VALUE")));
}

TEST(CudaStatusTest, WhatCannotBePassedOnEndsWithTheSameWords) {
  const Tensor x = Tensor::Zeros(CpuDevice(), {3}, DataType::kF32);
  CheckCuda(cudaSuccess, "cudaMemcpyAsync", x);
  EXPECT_DEATH(CheckCuda(cudaErrorIllegalAddress, "RmsNorm", x, x),
               "RmsNorm of f32.3. on cpu, f32.3. on cpu: .*illegal");
}

}  // namespace
}  // namespace cohort::runtime

#endif  // COHORT_HAVE_CUDA
