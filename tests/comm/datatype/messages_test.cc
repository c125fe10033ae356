// Messages of datatypes between real processes: over every transport, packed and in place, with layouts that differ on
// both sides.
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

struct Setting {
  const char* name;
  std::optional<LayoutWay> way;
  const char* transport = nullptr;
  const char* single_copy = nullptr;
};

const Setting kSettings[] = {
    {"priced", std::nullopt},
    {"packed", LayoutWay::kPacked},
    {"in_place", LayoutWay::kInPlace},
    {"fragments", LayoutWay::kInPlace, nullptr, "0"},
    {"ucx", LayoutWay::kInPlace, "ucx"},
};

class DatatypeMessages : public ::testing::TestWithParam<Setting> {
 protected:
  // Two ranks of this setting.
  void Run(const std::function<void(Communicator&)>& body) {
    const Setting setting = GetParam();
    cohort::testing::RunProcesses(2, [&](int rank, int size, const std::string& folder) {
      if (setting.transport != nullptr) setenv("COHORT_TRANSPORT", setting.transport, 1);
      if (setting.single_copy != nullptr) setenv("COHORT_SHM_SINGLE_COPY", setting.single_copy, 1);
      CommunicatorOptions options;
      options.timeout = absl::Seconds(20);
      options.layout_way = setting.way;
      auto comm = Communicator::Create(FileRendezvous(folder, rank, size), options);
      ASSERT_TRUE(comm.ok()) << comm.status();
      body(**comm);
    });
  }
};

Datatype Part(const std::vector<size_t>& sizes, const std::vector<size_t>& sub, const std::vector<size_t>& at,
              DataType dtype = DataType::kF64) {
  return *Datatype::Subarray(sizes, sub, at, Datatype::Element(dtype));
}

// Equally many bytes, each described in several ways.
std::vector<std::vector<Datatype>> Descriptions() {
  const Datatype byte = Datatype::Element(DataType::kU8), real = Datatype::Element(DataType::kF64);
  std::vector<ptrdiff_t> odd, many;
  for (ptrdiff_t i = 0; i < 64; ++i) odd.push_back(3 * i * i);
  for (ptrdiff_t i = 0; i < 4096; ++i) many.push_back(5 * i + i * i / 7 % 3);  // too many blocks to be told
  const std::vector<DatatypeMember> mixed = {{1, 40, *Datatype::HVector(20, 8, 24, byte)},
                                             {44, 2000, Datatype::Element(DataType::kF64)}};
  return {
      // 512 bytes: a message that travels whole.
      {Part({10, 10, 10}, {8, 8, 1}, {1, 1, 1}), *Datatype::Contiguous(64, real),
       *Datatype::IndexedBlock(1, odd, real), *Datatype::Struct(mixed)},
      // 32 KB: faces of a cube.
      {Part({66, 66, 66}, {64, 64, 1}, {1, 1, 64}), Part({66, 66, 66}, {64, 1, 64}, {1, 64, 1}),
       Part({64, 64, 64}, {1, 64, 64}, {63, 0, 0}), *Datatype::IndexedBlock(1, many, real),
       *Datatype::HVector(4096, 1, -24, real)},
      // 1.5 MB: long runs of several lengths.
      {*Datatype::HVector(24, 65536, 70000, byte), *Datatype::HVector(256, 6144, 8192, byte),
       *Datatype::HVector(1572864 / 24, 3, 40, real), *Datatype::Contiguous(1572864, byte)},
  };
}

std::vector<uint8_t> Memory(const Datatype& type, uint8_t fill) {
  return std::vector<uint8_t>(static_cast<size_t>(type.upper() - type.lower()), fill);
}

TEST_P(DatatypeMessages, LayoutsMayDiffer) {
  Run([](Communicator& comm) {
    const auto all = Descriptions();
    for (const std::vector<Datatype>& descriptions : all) {
      for (const Datatype& out : descriptions) {
        std::vector<uint8_t> source = Memory(out, 0);
        for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<uint8_t>(i * 7 + i / 255);
        std::vector<uint8_t> packed(out.bytes());
        out.Pack(source.data() - out.lower(), packed.data());
        for (const Datatype& in : descriptions) {
          ASSERT_EQ(in.bytes(), out.bytes());
          if (comm.rank() == 0) {
            ASSERT_EQ(comm.Send(source.data() - out.lower(), 1, out, 1, 4).Wait(), absl::OkStatus());
          } else {
            std::vector<uint8_t> target = Memory(in, 0x5a), expected = target;
            ASSERT_EQ(comm.Recv(target.data() - in.lower(), 1, in, 0, 4).Wait(), absl::OkStatus());
            in.Unpack(packed.data(), expected.data() - in.lower());
            ASSERT_EQ(target, expected)
                << in.bytes() << " bytes in " << in.num_runs() << " of " << out.num_runs();
          }
        }
      }
    }
  });
}

TEST_P(DatatypeMessages, SeveralOfAType) {
  Run([](Communicator& comm) {
    const Datatype real = Datatype::Element(DataType::kF32);
    const Datatype pair = *(*Datatype::Vector(2, 1, 3, real)).Resized(20);  // floats 0 and 3 of each five
    constexpr size_t kCount = 30000;
    if (comm.rank() == 0) {
      std::vector<float> out(5 * kCount);
      for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(i);
      ASSERT_EQ(comm.Send(out.data(), kCount, pair, 1).Wait(), absl::OkStatus());
      ASSERT_EQ(comm.Send(out.data(), 0, pair, 1).Wait(), absl::OkStatus());
    } else {
      std::vector<float> in(2 * kCount);  // as plain bytes
      ASSERT_EQ(comm.Recv(in.data(), 8 * kCount, DataType::kU8, 0).Wait(), absl::OkStatus());
      for (size_t i = 0; i < kCount; ++i) {
        ASSERT_EQ(in[2 * i], static_cast<float>(5 * i));
        ASSERT_EQ(in[2 * i + 1], static_cast<float>(5 * i + 3));
      }
      ASSERT_EQ(comm.Recv(nullptr, 0, real, 0).Wait(), absl::OkStatus());
    }
  });
}

TEST_P(DatatypeMessages, OtherSizesAreErrorsOnBothSides) {
  Run([](Communicator& comm) {
    const Datatype real = Datatype::Element(DataType::kF64);
    for (const size_t count : {size_t{20}, size_t{20000}}) {
      std::vector<double> buffer(2 * count + 4, 1.0);
      const Datatype mine = *Datatype::Vector(count + static_cast<size_t>(comm.rank()), 1, 2, real);
      const Work work =
          comm.rank() == 0 ? comm.Send(buffer.data(), 1, mine, 1) : comm.Recv(buffer.data(), 1, mine, 0);
      EXPECT_EQ(work.Wait().code(), absl::StatusCode::kInvalidArgument);
      const Datatype ours = *Datatype::Vector(count, 1, 2, real);
      const Work next =
          comm.rank() == 0 ? comm.Send(buffer.data(), 1, ours, 1) : comm.Recv(buffer.data(), 1, ours, 0);
      EXPECT_EQ(next.Wait(), absl::OkStatus());
    }
    EXPECT_EQ(comm.Send(nullptr, 1, real, 0).Wait().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(comm.Recv(nullptr, 1, real, 7).Wait().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(comm.Send(nullptr, SIZE_MAX, real, 0).Wait().code(), absl::StatusCode::kInvalidArgument);
  });
}

TEST_P(DatatypeMessages, MessagesToOneself) {
  Run([](Communicator& comm) {
    const Datatype face = Part({66, 66, 66}, {64, 64, 1}, {1, 1, 64});
    std::vector<double> cube(66 * 66 * 66), got(64 * 64);
    for (size_t i = 0; i < cube.size(); ++i) cube[i] = static_cast<double>(i);
    const Work send = comm.Send(cube.data(), 1, face, comm.rank());
    ASSERT_EQ(comm.Recv(got.data(), got.size(), Datatype::Element(DataType::kF64), comm.rank()).Wait(),
              absl::OkStatus());
    ASSERT_EQ(send.Wait(), absl::OkStatus());
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], ((1 + i / 64) * 66 + 1 + i % 64) * 66 + 64);
  });
}

INSTANTIATE_TEST_SUITE_P(Ways, DatatypeMessages, ::testing::ValuesIn(kSettings),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace cohort::comm
