// cohort bench checkpoint: saving and loading a model with its optimizer's state, on all ranks of the job together,
// beside a plain copy of the same files.
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/mesh_communicators.h"
#include "parallel/parallel_model.h"
#include "runtime/checkpoint/agree.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/file.h"
#include "tools/cohort/bench/bench.h"
#include "tools/cohort/bench/model.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

namespace fs = std::filesystem;

// 136 million parameters with what all shapes have in common: in bf16 1.9 GB with masters and moments.
constexpr BenchShape kShape = {.dense = R"(  num_hidden_layers: 2
  max_position_embeddings: 512
)",
                               .moe = R"(  num_hidden_layers: 2
  max_position_embeddings: 512
  num_experts: 4
  num_experts_per_tok: 2
  moe_intermediate_size: 1024
)"};

struct CheckpointFlags {
  std::shared_ptr<BenchFlags> bench = std::make_shared<BenchFlags>();
  std::string folder = "checkpoint-bench", sharding = "zero-3";
  int rounds = 3;
};

absl::Status ForEachFile(const std::string& folder,
                         const std::function<absl::Status(const fs::path&)>& visit) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) COHORT_RETURN_IF_ERROR(visit(entry.path()));
  return error ? runtime::ErrnoStatus(error.value(), "list", folder) : absl::OkStatus();
}

absl::Status OnDisk(const fs::path& path, bool forget) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return runtime::ErrnoStatus(errno, "open", path.string());
  const int synced = fsync(fd);
  // Nothing of it stays in memory, so that whoever reads it next reads the disk.
  if (forget) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
  return synced == 0 ? absl::OkStatus() : runtime::ErrnoStatus(errno, "sync", path.string());
}

// As `cp` does it, and on the disk.
absl::Status PlainCopy(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::remove_all(to, error);
  fs::create_directories(to, error);
  return ForEachFile(from, [&](const fs::path& path) {
    const fs::path copy = fs::path(to) / path.filename();
    if (!fs::copy_file(path, copy, error)) return runtime::ErrnoStatus(error.value(), "copy", path.string());
    return OnDisk(copy, /*forget=*/false);
  });
}

absl::Status BenchCheckpoint(const CheckpointFlags& flags) {
  COHORT_ASSIGN_OR_RETURN(const runtime::ModelConfig config, BenchModel(*flags.bench, kShape));
  COHORT_ASSIGN_OR_RETURN(const auto world, JoinWorld(absl::Minutes(5)));
  SetBenchThreads(*flags.bench);
  COHORT_ASSIGN_OR_RETURN(const parallel::Sharding sharding, parallel::ParseSharding(flags.sharding));
  COHORT_ASSIGN_OR_RETURN(const parallel::Mesh mesh,
                          parallel::MakeMesh({.shard = world->topology().local_size()}, *world));
  COHORT_ASSIGN_OR_RETURN(const auto model,
                          parallel::ParallelModel::Create(config, runtime::CpuDevice(),
                                                          {.compute = *ParseDataType(flags.bench->dtype),
                                                           .global_batch = world->size(),
                                                           .sharding = sharding},
                                                          mesh, world, /*source=*/nullptr));
  model->Initialize(1);
  runtime::OptimizerState optimizer = runtime::OptimizerState::For(model->slices());
  const bool is_root = world->rank() == 0;

  std::vector<double> saves, copies, loads, cold_loads;
  int64_t bytes = 0;
  // Rank 0's time of something that all ranks do, or rank 0 alone.
  const auto timed = [&](std::vector<double>& seconds, const std::function<absl::Status()>& what) {
    COHORT_RETURN_IF_ERROR(model->Barrier());
    const auto begin = std::chrono::steady_clock::now();
    COHORT_RETURN_IF_ERROR(AgreeStatus(*model, what()));
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    return absl::OkStatus();
  };
  for (int round = 1; round <= flags.rounds; ++round) {
    runtime::TrainerState state;
    state.step = round;
    std::string saved;
    COHORT_RETURN_IF_ERROR(timed(saves, [&]() -> absl::Status {
      COHORT_ASSIGN_OR_RETURN(
          saved, SaveCheckpoint(*model, optimizer, state,
                                {.root = flags.folder, .config = config, .tokenizer = "", .keep = 1}));
      return absl::OkStatus();
    }));
    const std::string copy = absl::StrCat(flags.folder, "/copy");
    COHORT_RETURN_IF_ERROR(
        timed(copies, [&] { return is_root ? PlainCopy(saved, copy) : absl::OkStatus(); }));
    const auto load = [&] { return LoadCheckpoint(*model, config, optimizer, saved).status(); };
    COHORT_RETURN_IF_ERROR(timed(loads, load));
    if (is_root) {
      bytes = 0;
      COHORT_RETURN_IF_ERROR(ForEachFile(saved, [&](const fs::path& path) {
        bytes += static_cast<int64_t>(fs::file_size(path));
        return OnDisk(path, /*forget=*/true);
      }));
    }
    COHORT_RETURN_IF_ERROR(timed(cold_loads, load));
    if (is_root) {
      std::fprintf(stderr,
                   "round %d: saved in %.3f s, copied in %.3f s, loaded in %.3f s, from the disk in %.3f s\n",
                   round, saves.back(), copies.back(), loads.back(), cold_loads.back());
    }
  }
  if (!is_root) return absl::OkStatus();
  const auto rate = [&](const std::vector<double>& seconds) {
    return static_cast<double>(bytes) / Median(seconds) / 1e9;
  };
  std::printf(
      "%.0f million parameters in %s, %d rank(s), sharding %s: %.0f MB of files\n  saved at %.2f GB/s, on "
      "the "
      "disk; a plain copy of the files, on the disk too: %.2f GB/s; saving takes %.2f of its time\n  loaded "
      "at %.2f "
      "GB/s from memory, %.2f GB/s from the disk\n",
      static_cast<double>(config.NumParameters()) / 1e6, flags.bench->dtype.c_str(), world->size(),
      flags.sharding.c_str(), static_cast<double>(bytes) / 1e6, rate(saves), rate(copies),
      Median(saves) / Median(copies), rate(loads), rate(cold_loads));
  nlohmann::ordered_json row = BenchRow("checkpoint", config, *flags.bench);
  row.update({{"ranks", world->size()},
              {"sharding", flags.sharding},
              {"bytes", bytes},
              {"save_gb_per_s", rate(saves)},
              {"copy_gb_per_s", rate(copies)},
              {"load_gb_per_s", rate(loads)},
              {"cold_load_gb_per_s", rate(cold_loads)}});
  std::error_code error;
  fs::remove_all(flags.folder, error);
  return WriteRows({row}, flags.bench->json);
}

}  // namespace

void AddBenchCheckpoint(CLI::App& bench, const Selected& selected) {
  CLI::App* app = bench.add_subcommand(
      "checkpoint",
      "Saving and loading a model with its optimizer's state, beside a plain copy of the files");
  const auto flags = std::make_shared<CheckpointFlags>();
  AddBenchFlags(*app, flags->bench, 1);
  app->add_option("--folder", flags->folder, "Where to; made, and removed afterwards")->capture_default_str();
  app->add_option("--sharding", flags->sharding, "How state is split over ranks, as parallel.sharding")
      ->capture_default_str();
  app->add_option("--rounds", flags->rounds, "Saves and loads; the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->callback([=] { selected([=] { return BenchCheckpoint(*flags); }); });
}

}  // namespace cohort::tools
