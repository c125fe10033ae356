// Datatypes from C: layouts, packing, messages.
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/c/handles.h"
#include "comm/c/operate.h"
#include "comm/check.h"
#include "comm/datatype/datatype.h"

struct cohort_datatype {
  cohort::comm::Datatype type;
};

namespace cohort::comm::c {
namespace {

// Fills *type with what `make` gives, or NULL.
template <typename Make>
cohort_status Describing(cohort_datatype** type, Make make) {
  return Guard([&]() -> absl::Status {
    if (type == nullptr) return NullArgument("where the datatype goes");
    *type = nullptr;
    COHORT_ASSIGN_OR_RETURN(Datatype made, make());
    *type = new cohort_datatype{std::move(made)};
    return absl::OkStatus();
  });
}

// The same of an inner type.
template <typename Make>
cohort_status Describing(const cohort_datatype* inner, cohort_datatype** type, Make make) {
  return Describing(type, [&]() -> absl::StatusOr<Datatype> {
    if (inner == nullptr) return NullArgument("the inner datatype");
    return make(inner->type);
  });
}

absl::Status CheckArray(const char* what, const void* array, size_t count) {
  return array == nullptr && count > 0 ? NullArgument(what) : absl::OkStatus();
}

}  // namespace
}  // namespace cohort::comm::c

using cohort::comm::Communicator;
using cohort::comm::Datatype;
using cohort::comm::c::CheckArray;
using cohort::comm::c::Describing;
using cohort::comm::c::Guard;
using cohort::comm::c::NullArgument;
using cohort::comm::c::Operate;

cohort_status cohort_datatype_element(cohort_dtype dtype, cohort_datatype** type) {
  return Describing(type, [&]() -> absl::StatusOr<Datatype> {
    if (dtype < 0 || dtype >= COHORT_NUM_DTYPES) {
      return absl::InvalidArgumentError(absl::StrCat(static_cast<int>(dtype), " is not a cohort_dtype"));
    }
    return Datatype::Element(static_cast<cohort::DataType>(dtype));
  });
}

cohort_status cohort_datatype_contiguous(size_t count, const cohort_datatype* inner, cohort_datatype** type) {
  return Describing(inner, type, [&](const Datatype& in) { return Datatype::Contiguous(count, in); });
}

cohort_status cohort_datatype_vector(size_t count, size_t length, ptrdiff_t stride,
                                     const cohort_datatype* inner, cohort_datatype** type) {
  return Describing(inner, type,
                    [&](const Datatype& in) { return Datatype::Vector(count, length, stride, in); });
}

cohort_status cohort_datatype_hvector(size_t count, size_t length, ptrdiff_t stride_bytes,
                                      const cohort_datatype* inner, cohort_datatype** type) {
  return Describing(inner, type,
                    [&](const Datatype& in) { return Datatype::HVector(count, length, stride_bytes, in); });
}

cohort_status cohort_datatype_indexed_block(size_t count, size_t length, const ptrdiff_t* displacements,
                                            const cohort_datatype* inner, cohort_datatype** type) {
  return Describing(inner, type, [&](const Datatype& in) -> absl::StatusOr<Datatype> {
    COHORT_RETURN_IF_ERROR(CheckArray("the array of displacements", displacements, count));
    return Datatype::IndexedBlock(length, absl::MakeConstSpan(displacements, count), in);
  });
}

cohort_status cohort_datatype_subarray(size_t num_dimensions, const size_t* sizes, const size_t* subsizes,
                                       const size_t* starts, const cohort_datatype* inner,
                                       cohort_datatype** type) {
  return Describing(inner, type, [&](const Datatype& in) -> absl::StatusOr<Datatype> {
    for (const size_t* array : {sizes, subsizes, starts}) {
      COHORT_RETURN_IF_ERROR(CheckArray("an array of the subarray's", array, num_dimensions));
    }
    return Datatype::Subarray(absl::MakeConstSpan(sizes, num_dimensions),
                              absl::MakeConstSpan(subsizes, num_dimensions),
                              absl::MakeConstSpan(starts, num_dimensions), in);
  });
}

cohort_status cohort_datatype_struct(size_t num_members, const size_t* counts, const ptrdiff_t* offsets,
                                     const cohort_datatype* const* types, cohort_datatype** type) {
  return Describing(type, [&]() -> absl::StatusOr<Datatype> {
    COHORT_RETURN_IF_ERROR(CheckArray("the array of counts", counts, num_members));
    COHORT_RETURN_IF_ERROR(CheckArray("the array of offsets", offsets, num_members));
    COHORT_RETURN_IF_ERROR(CheckArray("the array of types", types, num_members));
    std::vector<cohort::comm::DatatypeMember> members;
    for (size_t i = 0; i < num_members; ++i) {
      if (types[i] == nullptr) return NullArgument("a member's datatype");
      members.push_back({counts[i], offsets[i], types[i]->type});
    }
    return Datatype::Struct(members);
  });
}

cohort_status cohort_datatype_resized(size_t extent, const cohort_datatype* inner, cohort_datatype** type) {
  return Describing(inner, type, [&](const Datatype& in) { return in.Resized(extent); });
}

void cohort_datatype_free(cohort_datatype* type) { delete type; }

size_t cohort_datatype_bytes(const cohort_datatype* type) { return type == nullptr ? 0 : type->type.bytes(); }

ptrdiff_t cohort_datatype_extent(const cohort_datatype* type) {
  return type == nullptr ? 0 : type->type.extent();
}

cohort_status cohort_pack(const void* buffer, const cohort_datatype* type, void* packed) {
  return Guard([&]() -> absl::Status {
    if (type == nullptr) return NullArgument("the datatype");
    COHORT_RETURN_IF_ERROR(CheckArray("a buffer", buffer, type->type.bytes()));
    COHORT_RETURN_IF_ERROR(CheckArray("the memory to pack to", packed, type->type.bytes()));
    type->type.Pack(buffer, packed);
    return absl::OkStatus();
  });
}

cohort_status cohort_unpack(const void* packed, const cohort_datatype* type, void* buffer) {
  return Guard([&]() -> absl::Status {
    if (type == nullptr) return NullArgument("the datatype");
    COHORT_RETURN_IF_ERROR(CheckArray("the memory to unpack from", packed, type->type.bytes()));
    COHORT_RETURN_IF_ERROR(CheckArray("a buffer", buffer, type->type.bytes()));
    type->type.Unpack(packed, buffer);
    return absl::OkStatus();
  });
}

cohort_status cohort_send_type(cohort_comm* comm, const void* buffer, size_t count,
                               const cohort_datatype* type, int peer, int tag, cohort_work** work) {
  return Operate(comm, COHORT_U8, work, [&](Communicator& communicator) {
    if (type == nullptr) return cohort::comm::Work(NullArgument("the datatype"));
    return communicator.Send(buffer, count, type->type, peer, tag);
  });
}

cohort_status cohort_recv_type(cohort_comm* comm, void* buffer, size_t count, const cohort_datatype* type,
                               int peer, int tag, cohort_work** work) {
  return Operate(comm, COHORT_U8, work, [&](Communicator& communicator) {
    if (type == nullptr) return cohort::comm::Work(NullArgument("the datatype"));
    return communicator.Recv(buffer, count, type->type, peer, tag);
  });
}
