// Faces of a halo as messages between two ranks of a host: half of there and back, packed, in place, and as the prices
// choose, beside MPI_Send and MPI_Recv of the same type. What the prices said of both ways stands beside what
// was measured.
#ifdef COHORT_HAVE_MPI

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/communicator.h"
#include "comm/transport/mpi/mpi_runtime.h"
#include "tools/cohort/bench/datatype.h"
#include "tools/cohort/bench/halo.h"
#include "tools/cohort/bench/model.h"

namespace cohort::tools {
namespace {

using comm::Communicator;
using comm::Datatype;
using comm::LayoutWay;
using Clock = std::chrono::steady_clock;

constexpr double kNoise = 1.1;

struct Contestant {
  const char* name;
  std::unique_ptr<Communicator> comm;  // null: MPI
};

class MessageBench {
 public:
  MessageBench(const DatatypeFlags& flags, comm::mpi::Runtime& runtime) : flags_(flags), runtime_(runtime) {}

  absl::Status Connect() {
    if (runtime_.size != 2) {
      return absl::InvalidArgumentError(absl::StrFormat("%d ranks: mpirun -np 2 is needed", runtime_.size));
    }
    char folder[] = "/tmp/cohort-bench-XXXXXX";
    if (rank() == 0 && mkdtemp(folder) == nullptr) return absl::ErrnoToStatus(errno, "mkdtemp");
    MPI_Bcast(folder, sizeof(folder), MPI_BYTE, 0, MPI_COMM_WORLD);
    const struct {
      const char* name;
      std::optional<LayoutWay> way;
    } ways[] = {{"packed", LayoutWay::kPacked}, {"in place", LayoutWay::kInPlace}, {"priced", std::nullopt}};
    absl::Status status;
    for (const auto& way : ways) {
      comm::CommunicatorOptions options;
      options.layout_way = way.way;
      auto group = Communicator::Create(
          comm::FileRendezvous(absl::StrFormat("%s/%d", folder, contestants_.size()), rank(), 2), options);
      status.Update(group.status());
      if (group.ok()) contestants_.push_back({way.name, *std::move(group)});
    }
    contestants_.push_back({"mpi", nullptr});
    MPI_Barrier(MPI_COMM_WORLD);
    std::error_code ignored;
    if (rank() == 0) std::filesystem::remove_all(folder, ignored);
    return status;
  }

  int rank() const { return runtime_.rank; }

  absl::Status Face(const HaloFace& face) {
    std::vector<std::byte> array(face.array_bytes(), std::byte{1});
    COHORT_ASSIGN_OR_RETURN(const Datatype type, Describe(face, Description::kSubarray));
    MPI_Datatype theirs = DescribeToMpi(face, Description::kSubarray);
    std::vector<std::vector<double>> seconds(contestants_.size());
    std::vector<int> runs(contestants_.size());
    for (int turn = -1; turn < flags_.turns; ++turn) {
      for (size_t who = 0; who < contestants_.size(); ++who) {
        const int now = turn < 0 ? 3 : runs[who];
        COHORT_ASSIGN_OR_RETURN(const double each,
                                PingPong(contestants_[who], type, theirs, array.data(), now));
        if (turn >= 0) {
          seconds[who].push_back(each);
        } else {
          runs[who] = static_cast<int>(std::clamp(flags_.seconds / each, 3.0, 1e5));
          MPI_Bcast(&runs[who], 1, MPI_INT, 0, MPI_COMM_WORLD);
        }
      }
    }
    MPI_Type_free(&theirs);
    if (rank() == 0) Report(face, type, seconds);
    return absl::OkStatus();
  }

  absl::Status Finish() {
    if (rank() != 0) return absl::OkStatus();
    std::printf("\nchoices that are the faster way, or within %.0f%% of it: %d of %d\n", (kNoise - 1) * 100,
                right_, cases_);
    std::printf("MPI's time over Cohort's, geometric mean: %.2f\n", std::exp(logs_ / cases_));
    return WriteRows(rows_, flags_.json);
  }

 private:
  absl::StatusOr<double> PingPong(Contestant& who, const Datatype& type, MPI_Datatype theirs,
                                  std::byte* array, int runs) {
    MPI_Barrier(MPI_COMM_WORLD);
    const auto begin = Clock::now();
    for (int run = 0; run < runs; ++run) {
      for (const bool sends : {rank() == 0, rank() != 0}) {
        if (who.comm != nullptr) {
          COHORT_RETURN_IF_ERROR((sends ? who.comm->Send(array, 1, type, 1 - rank(), 0)
                                        : who.comm->Recv(array, 1, type, 1 - rank(), 0))
                                     .Wait());
        } else if (sends) {
          MPI_Send(array, 1, theirs, 1 - rank(), 0, MPI_COMM_WORLD);
        } else {
          MPI_Recv(array, 1, theirs, 1 - rank(), 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        }
      }
    }
    return std::chrono::duration<double>(Clock::now() - begin).count() / runs / 2;
  }

  void Report(const HaloFace& face, const Datatype& type, const std::vector<std::vector<double>>& seconds) {
    const comm::LayoutCost cost = comm::PriceLayout(type, comm::MachineLayoutPrices());
    std::vector<double> median;
    for (const auto& each : seconds) median.push_back(Median(each));
    const bool in_place = cost.way() == LayoutWay::kInPlace;
    const bool right = median[in_place ? 1 : 0] <= kNoise * std::min(median[0], median[1]);
    ++cases_;
    right_ += right;
    logs_ += std::log(median[3] / median[2]);
    if (cases_ == 1) {
      std::printf("%4s %4s %s axis %9s %9s | predicted us: %8s %9s | measured us: %8s %9s %8s %8s | chosen\n",
                  "side", "type", "width", "bytes", "run", "packed", "in place", "packed", "in place",
                  "priced", "mpi");
    }
    constexpr const char* kAxes[] = {"z", "y", "x"};
    std::printf(
        "%4d %4s %5d %4s %9d %9d |               %8.1f %9.1f |              %8.1f %9.1f %8.1f %8.1f | %s%s\n",
        face.side, Name(face.element), face.width, kAxes[face.axis], static_cast<int>(type.bytes()),
        static_cast<int>(type.bytes() / type.num_runs()), cost.packed * 1e6, cost.in_place * 1e6,
        median[0] * 1e6, median[1] * 1e6, median[2] * 1e6, median[3] * 1e6, in_place ? "in place" : "packed",
        right ? "" : ", wrongly");
    std::fflush(stdout);
    for (size_t who = 0; who < contestants_.size(); ++who) {
      nlohmann::ordered_json row = {{"op", "send"},
                                    {"side", face.side},
                                    {"dtype", Name(face.element)},
                                    {"width", face.width},
                                    {"axis", kAxes[face.axis]},
                                    {"bytes", type.bytes()},
                                    {"runs", type.num_runs()},
                                    {"who", contestants_[who].comm == nullptr ? "mpi" : "cohort"},
                                    {"algorithm", contestants_[who].name},
                                    {"median_s", median[who]}};
      if (who < 2) row["predicted_s"] = who == 0 ? cost.packed : cost.in_place;
      rows_.push_back(std::move(row));
    }
  }

  const DatatypeFlags& flags_;
  comm::mpi::Runtime& runtime_;
  std::vector<Contestant> contestants_;
  int cases_ = 0, right_ = 0;
  double logs_ = 0;
  std::vector<nlohmann::ordered_json> rows_;
};

}  // namespace

absl::Status BenchDatatypeMessages(const DatatypeFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(comm::mpi::Runtime * runtime, comm::mpi::Start());
  COHORT_ASSIGN_OR_RETURN(const std::vector<DataType> elements, ElementsOf(flags));
  MessageBench bench(flags, *runtime);
  COHORT_RETURN_IF_ERROR(bench.Connect());
  for (const int side : flags.sides) {
    for (const DataType element : elements) {
      for (const int width : flags.widths) {
        for (const int axis : {0, 1, 2}) {
          COHORT_RETURN_IF_ERROR(bench.Face({side, width, axis, false, false, element}));
        }
      }
    }
  }
  return bench.Finish();
}

}  // namespace cohort::tools

#endif  // COHORT_HAVE_MPI
