// Failures, data types and reductions as C sees them: each table is held to the C++ one it mirrors.
#include <array>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "comm/c/handles.h"
#include "comm/operation.h"

namespace cohort::comm::c {
namespace {

struct StatusRow {
  cohort_status status;
  const char* name;
  absl::StatusCode code;
};
constexpr StatusRow kStatuses[] = {
    {COHORT_OK, "OK", absl::StatusCode::kOk},
    {COHORT_INVALID_ARGUMENT, "INVALID_ARGUMENT", absl::StatusCode::kInvalidArgument},
    {COHORT_UNAVAILABLE, "UNAVAILABLE", absl::StatusCode::kUnavailable},
    {COHORT_DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", absl::StatusCode::kDeadlineExceeded},
    {COHORT_FAILED_PRECONDITION, "FAILED_PRECONDITION", absl::StatusCode::kFailedPrecondition},
    {COHORT_UNIMPLEMENTED, "UNIMPLEMENTED", absl::StatusCode::kUnimplemented},
    {COHORT_OUT_OF_MEMORY, "OUT_OF_MEMORY", absl::StatusCode::kResourceExhausted},
    {COHORT_INTERNAL, "INTERNAL", absl::StatusCode::kInternal},
};

// Row i of the C++ table is enumerator i of C: checked by name, so that a row in between is noticed here.
struct DtypeRow {
  cohort_dtype dtype;
  std::string_view spelled;
};
constexpr DtypeRow kDtypes[] = {
    {COHORT_F32, "f32"}, {COHORT_BF16, "bf16"}, {COHORT_F16, "f16"}, {COHORT_F64, "f64"},
    {COHORT_I8, "i8"},   {COHORT_U8, "u8"},     {COHORT_I32, "i32"}, {COHORT_I64, "i64"},
};
#define COHORT_X(enumerator, type, name, accumulator)                                      \
  static_assert(kDtypes[static_cast<int>(DataType::enumerator)].spelled == name &&         \
                    kDtypes[static_cast<int>(DataType::enumerator)].dtype ==               \
                        static_cast<cohort_dtype>(static_cast<int>(DataType::enumerator)), \
                "comm/c/cohort_comm.h and comm/data_type.h list different data types: " name);
COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
#define COHORT_X(enumerator, type, name, accumulator) +1
static_assert(std::size(kDtypes) == 0 COHORT_DATA_TYPES(COHORT_X) && COHORT_NUM_DTYPES == std::size(kDtypes),
              "comm/c/cohort_comm.h lacks a data type of comm/data_type.h");
#undef COHORT_X

static_assert(COHORT_SUM == static_cast<int>(ReduceOp::kSum));
static_assert(COHORT_MIN == static_cast<int>(ReduceOp::kMin));
static_assert(COHORT_MAX == static_cast<int>(ReduceOp::kMax));
static_assert(COHORT_PRODUCT == static_cast<int>(ReduceOp::kProduct));
static_assert(COHORT_NUM_REDUCE_OPS == static_cast<int>(ReduceOp::kProduct) + 1);

thread_local std::string last_message;

}  // namespace

cohort_status Report(const absl::Status& status) {
  if (status.ok()) return COHORT_OK;
  last_message.assign(status.message().data(), status.message().size());
  for (const StatusRow& row : kStatuses) {
    if (row.code == status.code()) return row.status;
  }
  return COHORT_INTERNAL;
}

absl::Status NullArgument(const char* what) {
  return absl::InvalidArgumentError(absl::StrCat(what, " is NULL"));
}

absl::Status CheckStructSize(const char* what, size_t given, size_t expected) {
  if (given == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " says struct_size ", given, ", expected ", expected,
                                                 ": begin with its _INIT, or sizeof"));
}

}  // namespace cohort::comm::c

int cohort_comm_api_version(void) { return COHORT_COMM_API_VERSION; }

const char* cohort_status_name(cohort_status status) {
  for (const auto& row : cohort::comm::c::kStatuses) {
    if (row.status == status) return row.name;
  }
  return "?";
}

const char* cohort_last_message(void) { return cohort::comm::c::last_message.c_str(); }

size_t cohort_dtype_size(cohort_dtype dtype) {
  if (dtype < 0 || dtype >= COHORT_NUM_DTYPES) return 0;
  return cohort::SizeOf(static_cast<cohort::DataType>(dtype));
}

const char* cohort_dtype_name(cohort_dtype dtype) {
  if (dtype < 0 || dtype >= COHORT_NUM_DTYPES) return "?";
  return cohort::Name(static_cast<cohort::DataType>(dtype));
}
