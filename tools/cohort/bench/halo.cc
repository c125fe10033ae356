#include "tools/cohort/bench/halo.h"

#ifdef COHORT_HAVE_MPI

#include <vector>

namespace cohort::tools {
namespace {

using comm::Datatype;

// The part of the array, in elements, slowest axis first.
struct Box {
  int sizes[3], sub[3], at[3];

  explicit Box(const HaloFace& face) {
    for (int axis = 0; axis < 3; ++axis) {
      sizes[axis] = face.side + 2 * face.width;
      sub[axis] = face.side;
      at[axis] = face.width;
    }
    sub[face.axis] = face.width;
    const int low = face.ghost ? 0 : face.width;
    at[face.axis] = face.high ? sizes[face.axis] - face.width - low : low;
  }
  ptrdiff_t row(int plane, int row) const {
    return (static_cast<ptrdiff_t>(at[0] + plane) * sizes[1] + at[1] + row) * sizes[2] + at[2];
  }
};

MPI_Datatype ElementOf(DataType element) {
  return element == DataType::kF64 ? MPI_DOUBLE : element == DataType::kF32 ? MPI_FLOAT : MPI_BYTE;
}

}  // namespace

size_t HaloFace::array_bytes() const {
  const auto edge = static_cast<size_t>(side + 2 * width);
  return edge * edge * edge * SizeOf(element);
}

const char* Name(Description description) {
  switch (description) {
    case Description::kSubarray:
      return "subarray";
    case Description::kNestedVectors:
      return "nested vectors";
    case Description::kIndexedBlock:
      return "indexed rows";
    case Description::kStruct:
      return "struct of planes";
  }
  return "?";
}

absl::StatusOr<Datatype> Describe(const HaloFace& face, Description description) {
  const Box box(face);
  const Datatype element = Datatype::Element(face.element);
  const auto bytes = static_cast<ptrdiff_t>(SizeOf(face.element));
  const auto planes = static_cast<size_t>(box.sub[0]), rows = static_cast<size_t>(box.sub[1]),
             columns = static_cast<size_t>(box.sub[2]);
  if (description == Description::kSubarray) {
    std::vector<size_t> sizes(box.sizes, box.sizes + 3), sub(box.sub, box.sub + 3), at(box.at, box.at + 3);
    return Datatype::Subarray(sizes, sub, at, element);
  }
  if (description == Description::kIndexedBlock) {
    std::vector<ptrdiff_t> displacements;
    for (int plane = 0; plane < box.sub[0]; ++plane) {
      for (int row = 0; row < box.sub[1]; ++row) displacements.push_back(box.row(plane, row));
    }
    return Datatype::IndexedBlock(columns, displacements, element);
  }
  const absl::StatusOr<Datatype> plane = Datatype::Vector(rows, columns, box.sizes[2], element);
  if (!plane.ok()) return plane;
  std::vector<comm::DatatypeMember> members;
  if (description == Description::kNestedVectors) {
    const auto all = Datatype::HVector(planes, 1, bytes * box.sizes[1] * box.sizes[2], *plane);
    if (!all.ok()) return all;
    members.push_back({1, box.row(0, 0) * bytes, *all});
  } else {
    for (int i = 0; i < box.sub[0]; ++i) members.push_back({1, box.row(i, 0) * bytes, *plane});
  }
  return Datatype::Struct(members);
}

MPI_Datatype DescribeToMpi(const HaloFace& face, Description description) {
  const Box box(face);
  const MPI_Datatype element = ElementOf(face.element);
  const auto bytes = static_cast<MPI_Aint>(SizeOf(face.element));
  MPI_Datatype type = MPI_DATATYPE_NULL;
  if (description == Description::kSubarray) {
    MPI_Type_create_subarray(3, box.sizes, box.sub, box.at, MPI_ORDER_C, element, &type);
  } else if (description == Description::kIndexedBlock) {
    std::vector<int> displacements;
    for (int plane = 0; plane < box.sub[0]; ++plane) {
      for (int row = 0; row < box.sub[1]; ++row)
        displacements.push_back(static_cast<int>(box.row(plane, row)));
    }
    MPI_Type_create_indexed_block(static_cast<int>(displacements.size()), box.sub[2], displacements.data(),
                                  element, &type);
  } else {
    MPI_Datatype plane = MPI_DATATYPE_NULL;
    MPI_Type_vector(box.sub[1], box.sub[2], box.sizes[2], element, &plane);
    std::vector<int> lengths;
    std::vector<MPI_Aint> offsets;
    std::vector<MPI_Datatype> types;
    if (description == Description::kNestedVectors) {
      MPI_Type_create_hvector(box.sub[0], 1, bytes * box.sizes[1] * box.sizes[2], plane,
                              &types.emplace_back());
      lengths.push_back(1);
      offsets.push_back(box.row(0, 0) * bytes);
    } else {
      for (int i = 0; i < box.sub[0]; ++i) {
        lengths.push_back(1);
        offsets.push_back(box.row(i, 0) * bytes);
        types.push_back(plane);
      }
    }
    MPI_Type_create_struct(static_cast<int>(lengths.size()), lengths.data(), offsets.data(), types.data(),
                           &type);
    if (description == Description::kNestedVectors) MPI_Type_free(&types[0]);
    MPI_Type_free(&plane);
  }
  MPI_Type_commit(&type);
  return type;
}

}  // namespace cohort::tools

#endif  // COHORT_HAVE_MPI
