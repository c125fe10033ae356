// cohort bench datatype: the faces of a 3-D halo, packed and unpacked, beside the MPI of this machine, by the same
// descriptions. Contestants take turns; the median over the turns counts. Each face is packed again and again, as
// MPI benchmarks do it, so its cache lines are as near as they can be: the first cache, or where they do not fit, the
// next. With two ranks: bench_datatype_messages.cc.
#include "tools/cohort/bench/datatype.h"

#include "comm/rendezvous.h"
#include "tools/cohort/bench/bench.h"

#ifdef COHORT_HAVE_MPI

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/transport/mpi/mpi_runtime.h"
#include "tools/cohort/bench/halo.h"
#include "tools/cohort/bench/model.h"

namespace cohort::tools {
namespace {

using comm::Datatype;
using Clock = std::chrono::steady_clock;

constexpr const char* kAxes[] = {"z", "y", "x"};
constexpr double kGoal = 10;

template <typename Call>
double SecondsOf(const Call& call, int calls) {
  const auto begin = Clock::now();
  for (int i = 0; i < calls; ++i) call();
  return std::chrono::duration<double>(Clock::now() - begin).count() / calls;
}

// Medians of two that take turns.
template <typename Ours, typename Theirs>
std::pair<double, double> Compare(const DatatypeFlags& flags, const Ours& ours, const Theirs& theirs) {
  const auto calls = [&](const auto& call) {
    call();
    return static_cast<int>(std::clamp(flags.seconds / SecondsOf(call, 2), 1.0, 1e6));
  };
  const int our_calls = calls(ours), their_calls = calls(theirs);
  std::vector<double> our_seconds, their_seconds;
  for (int turn = 0; turn < flags.turns; ++turn) {
    our_seconds.push_back(SecondsOf(ours, our_calls));
    their_seconds.push_back(SecondsOf(theirs, their_calls));
  }
  return {Median(our_seconds), Median(their_seconds)};
}

// Logarithms of ratios.
struct Mean {
  double sum = 0;
  int count = 0, reach = 0;
  void Add(double ratio) {
    sum += std::log(ratio);
    ++count;
    reach += ratio >= kGoal;
  }
  double value() const { return std::exp(sum / count); }
};

class PackingBench {
 public:
  explicit PackingBench(const DatatypeFlags& flags) : flags_(flags) {}

  absl::Status Cube(int side, DataType element, int width) {
    HaloFace face{side, width, 2, false, false, element};
    const size_t bytes = face.array_bytes();
    std::vector<std::byte> array(bytes);
    for (size_t i = 0; i < bytes; ++i) array[i] = static_cast<std::byte>(i * 7 + (i >> 9));
    for (const Description description : kDescriptions) {
      double whole[2][2] = {};  // unpack or not, ours or theirs
      Mean axes[2][3];
      for (int axis = 0; axis < 3; ++axis) {
        for (const bool high : {false, true}) {
          for (const bool unpack : {false, true}) {
            face.axis = axis;
            face.high = high;
            face.ghost = unpack;
            COHORT_ASSIGN_OR_RETURN(const auto seconds, Measure(face, description, unpack, array.data()));
            whole[unpack][0] += seconds.first;
            whole[unpack][1] += seconds.second;
            axes[unpack][axis].Add(seconds.second / seconds.first);
          }
        }
      }
      std::printf("%4d %4s %d  %-16s", side, Name(element), width, Name(description));
      for (const bool unpack : {false, true}) {
        const double halo = whole[unpack][1] / whole[unpack][0];
        halos_[unpack][Name(description)].Add(halo);
        std::printf("  %9.2f us %5.2f %5.2f %5.2f %6.2f", whole[unpack][0] * 1e6, axes[unpack][0].value(),
                    axes[unpack][1].value(), axes[unpack][2].value(), halo);
      }
      std::printf("\n");
      std::fflush(stdout);
    }
    return absl::OkStatus();
  }

  void PrintHead() const {
    std::printf(
        "side, element, width, description; pack: time of the six faces, MPI's time over it by axis z, y, x, "
        "and of "
        "the halo; unpack: the same\n");
  }

  absl::Status Finish() {
    std::printf("\ngeometric means of MPI's time over Cohort's, and how many of the cases reach %.0f\n",
                kGoal);
    for (const bool unpack : {false, true}) {
      for (const auto& [name, mean] : faces_[unpack]) Print(unpack, name, "faces", mean);
      for (const auto& [name, mean] : halos_[unpack]) Print(unpack, name, "halos", mean);
      for (const auto& [name, mean] : axes_[unpack]) Print(unpack, name, "faces", mean);
      for (const auto& [name, mean] : runs_[unpack]) Print(unpack, name, "faces", mean);
    }
    return WriteRows(rows_, flags_.json);
  }

 private:
  static void Print(bool unpack, const std::string& name, const char* what, const Mean& mean) {
    std::printf("%-7s %-28s %6.2f  %d of %d %s\n", unpack ? "unpack" : "pack", name.c_str(), mean.value(),
                mean.reach, mean.count, what);
  }

  // Seconds of ours and theirs.
  absl::StatusOr<std::pair<double, double>> Measure(const HaloFace& face, Description description,
                                                    bool unpack, std::byte* array) {
    COHORT_ASSIGN_OR_RETURN(const Datatype ours, Describe(face, description));
    MPI_Datatype theirs = DescribeToMpi(face, description);
    const int bytes = static_cast<int>(ours.bytes());
    std::vector<std::byte> packed(ours.bytes()), their_packed(ours.bytes());
    const auto their_pack = [&](std::vector<std::byte>& to) {
      int at = 0;
      MPI_Pack(array, 1, theirs, to.data(), bytes, &at, MPI_COMM_SELF);
    };
    ours.Pack(array, packed.data());
    their_pack(their_packed);
    if (packed != their_packed) {
      return absl::InternalError(absl::StrFormat("%s: MPI_Pack packs other bytes", Name(description)));
    }
    const auto seconds = unpack
                             ? Compare(
                                   flags_, [&] { ours.Unpack(packed.data(), array); },
                                   [&] {
                                     int at = 0;
                                     MPI_Unpack(packed.data(), bytes, &at, array, 1, theirs, MPI_COMM_SELF);
                                   })
                             : Compare(
                                   flags_, [&] { ours.Pack(array, packed.data()); },
                                   [&] { their_pack(packed); });  // where memory lies is the same for both
    MPI_Type_free(&theirs);
    const double ratio = seconds.second / seconds.first;
    const size_t run = ours.bytes() / ours.num_runs(), lines = ours.num_runs() * (run / 64 + 1) * 64;
    faces_[unpack][Name(description)].Add(ratio);
    axes_[unpack][absl::StrCat("axis ", kAxes[face.axis])].Add(ratio);
    const char* near = lines <= 40 << 10  ? "in the first cache"
                       : lines <= 1 << 20 ? "in the second"
                                          : "beyond";
    runs_[unpack][absl::StrCat(run <= 24 ? "runs to 24 B, " : "longer runs, ", near)].Add(ratio);
    for (const bool mpi : {false, true}) {
      rows_.push_back({{"op", unpack ? "unpack" : "pack"},
                       {"side", face.side},
                       {"dtype", Name(face.element)},
                       {"width", face.width},
                       {"axis", kAxes[face.axis]},
                       {"high", face.high},
                       {"described", Name(description)},
                       {"bytes", ours.bytes()},
                       {"runs", ours.num_runs()},
                       {"who", mpi ? "mpi" : "cohort"},
                       {"median_s", mpi ? seconds.second : seconds.first}});
    }
    return seconds;
  }

  const DatatypeFlags& flags_;
  std::map<std::string, Mean> faces_[2], halos_[2], axes_[2], runs_[2];
  std::vector<nlohmann::ordered_json> rows_;
};

}  // namespace

absl::StatusOr<std::vector<DataType>> ElementsOf(const DatatypeFlags& flags) {
  std::vector<DataType> elements;
  for (const std::string& name : flags.elements) {
    elements.push_back(name == "u8" ? DataType::kU8 : name == "f32" ? DataType::kF32 : DataType::kF64);
    if (name != Name(elements.back())) {
      return absl::InvalidArgumentError(absl::StrCat("--elements ", name, ": u8, f32 and f64 are measured"));
    }
  }
  return elements;
}

absl::Status BenchPacking(const DatatypeFlags& flags) {
  COHORT_RETURN_IF_ERROR(comm::mpi::Start().status());
  COHORT_ASSIGN_OR_RETURN(const std::vector<DataType> elements, ElementsOf(flags));
  PackingBench bench(flags);
  bench.PrintHead();
  for (const int side : flags.sides) {
    for (const DataType element : elements) {
      for (const int width : flags.widths) COHORT_RETURN_IF_ERROR(bench.Cube(side, element, width));
    }
  }
  return bench.Finish();
}

}  // namespace cohort::tools

#else

namespace cohort::tools {

absl::Status BenchPacking(const DatatypeFlags&) {
  return absl::UnimplementedError("this build has no MPI, beside which datatypes are measured");
}

absl::Status BenchDatatypeMessages(const DatatypeFlags& flags) { return BenchPacking(flags); }

}  // namespace cohort::tools

#endif  // COHORT_HAVE_MPI

namespace cohort::tools {

void AddBenchDatatype(CLI::App& bench, const Selected& selected) {
  CLI::App* app = bench.add_subcommand(
      "datatype",
      "Halo faces of 3-D arrays beside MPI: packed in one process, or as messages under mpirun -np 2");
  const auto flags = std::make_shared<DatatypeFlags>();
  app->add_option("--sides", flags->sides, "Sides of the cubes, without ghost layers")
      ->delimiter(',')
      ->check(CLI::Range(4, 1024))
      ->capture_default_str();
  app->add_option("--widths", flags->widths, "Widths of the halo")
      ->delimiter(',')
      ->check(CLI::Range(1, 4))
      ->capture_default_str();
  app->add_option("--elements", flags->elements, "u8, f32, f64")->delimiter(',')->capture_default_str();
  app->add_option("--turns", flags->turns, "Of each contestant")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app->add_option("--seconds", flags->seconds, "Of a turn")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--json", flags->json, "Write one JSON object a row to this file");
  app->callback([=] {
    selected([=] { return comm::LaunchedByMpi() ? BenchDatatypeMessages(*flags) : BenchPacking(*flags); });
  });
}

}  // namespace cohort::tools
