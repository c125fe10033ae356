// cohort serve: one model over gRPC, its experts spread over the ranks of the job.
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "comm/policy.h"
#include "runtime/file.h"
#include "serving/serve.h"
#include "tools/cohort/chosen_device.h"
#include "tools/cohort/command.h"
#include "tools/cohort/served_model.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

struct ServeFlags {
  std::string model, name, dtype = "auto", device = "cpu", address_file;
  int threads = 0;
  double drain_seconds = absl::ToDoubleSeconds(serving::policy::kDrainGrace);
  int64_t cache_megabytes = serving::policy::kCacheBytes >> 20;
  double timeout_seconds = absl::ToDoubleSeconds(comm::policy::kTimeout);
  serving::ServeOptions options;
};

// What clients connect to: the host of --listen with the port that was bound.
std::string BoundAddress(const std::string& listen, int port) {
  const size_t colon = listen.rfind(':');
  return absl::StrCat(listen.substr(0, colon), ":", port);
}

absl::Status Serve(ServeFlags flags) {
  const std::atomic<bool>* stop = StopRequested();  // before the first thread
  COHORT_ASSIGN_OR_RETURN(auto world, JoinWorld(absl::Seconds(flags.timeout_seconds)));
  runtime::SetCpuThreads(flags.threads > 0 ? flags.threads : std::max(1, HostCores() / RanksOnHost(*world)));
  COHORT_ASSIGN_OR_RETURN(runtime::Device* const device, DeviceOfRank(flags.device, *world));
  COHORT_ASSIGN_OR_RETURN(const ServedModel model, LoadServedModel(flags.model, flags.dtype, *device, world));
  serving::ServeOptions& options = flags.options;
  options.model_name = flags.name;
  if (options.model_name.empty()) {
    options.model_name = std::filesystem::weakly_canonical(flags.model).filename().string();
  }
  options.cache.bytes = flags.cache_megabytes << 20;
  options.drain_grace = absl::Seconds(flags.drain_seconds);
  options.should_stop = [stop] { return stop->load(); };
  options.on_ready = [&](int port, int metrics_port) {
    const std::string address = BoundAddress(options.server.address, port);
    std::printf("serving %s on %s\n", options.model_name.c_str(), address.c_str());
    if (metrics_port != 0) {
      std::printf("metrics on http://%s/metrics\n",
                  BoundAddress(options.metrics_address, metrics_port).c_str());
    }
    std::fflush(stdout);
    if (flags.address_file.empty()) return;
    // Renamed into place, so that whoever waits for the file never reads half of it.
    const std::string partial = flags.address_file + ".partial";
    absl::Status status = runtime::WriteFileDurably(partial, address + "\n");
    std::error_code error;
    if (status.ok()) std::filesystem::rename(partial, flags.address_file, error);
    if (!status.ok() || error)
      std::fprintf(stderr, "cohort serve: cannot write %s\n", flags.address_file.c_str());
  };
  return serving::Serve(options, *model.decoder, model.tokenizer, *world);
}

}  // namespace

void AddServe(CLI::App& app, const Selected& selected) {
  CLI::App* serve = app.add_subcommand(
      "serve", "Serve a model over gRPC; under mpirun its experts are spread over the ranks");
  const auto flags = std::make_shared<ServeFlags>();
  serving::ServeOptions& options = flags->options;
  serve->add_option("--model", flags->model, "A model folder: config.json, tokenizer.json, *.safetensors")
      ->required();
  serve->add_option("--listen", options.server.address, "Address and port; port 0: any free one")
      ->capture_default_str();
  serve->add_option("--name", flags->name, "What clients call the model. Default: the folder's name");
  serve->add_option("--address-file", flags->address_file,
                    "Write the bound address there once the server answers");
  serve->add_option("--metrics", options.metrics_address,
                    "Address and port of the Prometheus endpoint. Default: none");
  serve->add_option("--dtype", flags->dtype, "auto (as on disk), bf16 or f32")
      ->check(CLI::IsMember({"auto", "bf16", "f32"}))
      ->capture_default_str();
  AddDeviceFlag(*serve, flags->device);
  serve->add_option("--threads", flags->threads,
                    "Compute threads of a rank. Default: the host's cores divided by its ranks");
  serve->add_option("--cache-megabytes", flags->cache_megabytes, "Memory of a rank for keys and values")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  serve->add_option("--max-sequences", options.engine.max_sequences, "Sequences a rank works on at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  serve
      ->add_option("--max-step-tokens", options.engine.max_tokens_per_step,
                   "Tokens a rank computes in a step: decodes, and prefill chunks in what they leave")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  serve
      ->add_option("--max-queued", options.engine.max_queued_requests,
                   "Requests that may wait; more are answered with RESOURCE_EXHAUSTED")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  serve->add_option("--tls-certificate", options.server.tls_certificate, "PEM file; with --tls-key");
  serve->add_option("--tls-key", options.server.tls_key, "PEM file");
  serve
      ->add_option("--drain-seconds", flags->drain_seconds, "After SIGTERM, time for running requests to end")
      ->capture_default_str();
  serve->add_option("--timeout", flags->timeout_seconds, "Seconds after which a silent rank counts as lost")
      ->capture_default_str();
  serve->callback([=] { selected([=] { return Serve(*flags); }); });
}

}  // namespace cohort::tools
