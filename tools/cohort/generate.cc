// cohort generate: a completion on the terminal, from a model folder or from a running server.
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "serving/client.h"
#include "serving/decoder_runner.h"
#include "serving/engine.h"
#include "serving/validate.h"
#include "serving/wire.h"
#include "tools/cohort/chosen_device.h"
#include "tools/cohort/command.h"
#include "tools/cohort/generation_flags.h"
#include "tools/cohort/served_model.h"
#include "tools/cohort/world.h"

namespace cohort::tools {
namespace {

struct GenerateFlags {
  std::string model, server, dtype = "auto", device = "cpu", tls_roots;
  double timeout_seconds = 600;
  int threads = 0;
  bool json = false;
};

const char* NameOf(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_ABORTED:
      return "aborted";
    default:
      return "";
  }
}

// Prints completions as they come: the text as it grows where there is one, else all at the end.
class Printer {
 public:
  Printer(bool json, int n) : grows_(!json && n == 1), json_(json) {}

  void Add(const v1::GenerateStreamResponse& message) {
    serving::MergeResponse(message, whole_);
    if (!grows_) return;
    for (const v1::Completion& part : message.completions()) {
      std::fwrite(part.text().data(), 1, part.text().size(), stdout);
    }
    std::fflush(stdout);
  }

  void End() {
    for (const v1::Completion& completion : whole_.completions()) {
      if (json_) {
        const std::vector<int32_t> tokens(completion.token_ids().begin(), completion.token_ids().end());
        const nlohmann::ordered_json row = {{"index", completion.index()},
                                            {"text", completion.text()},
                                            {"token_ids", tokens},
                                            {"finish_reason", NameOf(completion.finish_reason())}};
        std::printf("%s\n", row.dump().c_str());
      } else if (!grows_) {
        std::printf("[%d] %s\n", completion.index(), completion.text().c_str());
      }
    }
    if (grows_) std::printf("\n");
  }

 private:
  const bool grows_, json_;
  v1::GenerateResponse whole_;
};

int CompletionsOf(const v1::GenerateRequest& request) {
  return request.sampling().has_n() ? std::max(1, request.sampling().n()) : 1;
}

absl::Status FromServer(const GenerateFlags& flags, const v1::GenerateRequest& request) {
  COHORT_ASSIGN_OR_RETURN(const auto client,
                          serving::Client::Create(flags.server, {.tls_roots = flags.tls_roots}));
  Printer printer(flags.json, CompletionsOf(request));
  const absl::Time deadline = absl::Now() + absl::Seconds(flags.timeout_seconds);
  const auto on_message = [&](const v1::GenerateStreamResponse& message) {
    printer.Add(message);
    return true;
  };
  const absl::Status status = client->GenerateStream(request, deadline, on_message).status();
  if (absl::IsUnavailable(status)) {
    return absl::UnavailableError(
        absl::StrCat(status.message(), "; start one with cohort serve, or name another with --server"));
  }
  COHORT_RETURN_IF_ERROR(status);
  printer.End();
  return absl::OkStatus();
}

// Hands the engine's deltas to the printer and waits for the end.
class PrintingSink final : public serving::GenerationSink {
 public:
  PrintingSink(Printer& printer, const runtime::Tokenizer& tokenizer)
      : printer_(printer), tokenizer_(tokenizer) {}
  void OnPrompt(const std::vector<int32_t>&, std::vector<serving::TokenScores>) override {}
  void OnDelta(serving::Delta delta) override {
    v1::GenerateStreamResponse message;
    serving::MergeDelta(delta, tokenizer_, message);
    printer_.Add(message);
  }
  void OnFinish(const absl::Status& status, const serving::TokenUsage&) override {
    const std::lock_guard lock(mutex_);
    status_ = status;
    finished_ = true;
    done_.notify_all();
  }
  // The engine ends every request by its deadline.
  absl::Status Wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return finished_; });
    return status_;
  }

 private:
  Printer& printer_;
  const runtime::Tokenizer& tokenizer_;
  std::mutex mutex_;
  std::condition_variable done_;
  bool finished_ = false;
  absl::Status status_;
};

absl::Status FromFolder(const GenerateFlags& flags, const v1::GenerateRequest& message) {
  runtime::SetCpuThreads(flags.threads > 0 ? flags.threads : HostCores());
  COHORT_ASSIGN_OR_RETURN(runtime::Device* const device, ChosenDevice(flags.device));
  COHORT_ASSIGN_OR_RETURN(const ServedModel model,
                          LoadServedModel(flags.model, flags.dtype, *device, comm::Communicator::Single()));
  const int n = CompletionsOf(message);
  COHORT_ASSIGN_OR_RETURN(auto runner, serving::DecoderRunner::Create(*model.decoder, {}, n));
  const serving::RunnerInfo info = runner->info();
  serving::Metrics metrics("generate");
  COHORT_ASSIGN_OR_RETURN(const auto engine,
                          serving::Engine::Create(std::move(runner), model.tokenizer, {}, metrics));
  COHORT_ASSIGN_OR_RETURN(
      serving::GenerationRequest request,
      serving::ValidateRequest(message, *model.tokenizer,
                               {.vocabulary_size = info.vocabulary_size, .capacity = engine->capacity()},
                               std::random_device()()));
  request.deadline = absl::Now() + absl::Seconds(flags.timeout_seconds);
  Printer printer(flags.json, n);
  const auto sink = std::make_shared<PrintingSink>(printer, *model.tokenizer);
  COHORT_RETURN_IF_ERROR(engine->Submit(std::move(request), sink).status());
  COHORT_RETURN_IF_ERROR(sink->Wait());
  printer.End();
  return absl::OkStatus();
}

absl::Status Generate(const GenerateFlags& flags, const v1::GenerateRequest& request) {
  if (flags.model.empty() == flags.server.empty()) {
    return absl::InvalidArgumentError("say either --model DIR or --server HOST:PORT");
  }
  return flags.server.empty() ? FromFolder(flags, request) : FromServer(flags, request);
}

}  // namespace

void AddGenerate(CLI::App& app, const Selected& selected) {
  CLI::App* generate = app.add_subcommand("generate", "Print a completion, from a model folder or a server");
  const auto flags = std::make_shared<GenerateFlags>();
  const auto request = std::make_shared<v1::GenerateRequest>();
  generate->add_option("--model", flags->model, "A model folder: config.json, tokenizer.json, *.safetensors");
  generate->add_option("--server", flags->server,
                       "The address of a running `cohort serve`, instead of --model");
  AddGenerationFlags(*generate, request);
  generate->add_flag("--json", flags->json, "One JSON object a completion, at the end");
  generate->add_option("--dtype", flags->dtype, "With --model: auto (as on disk), bf16 or f32")
      ->check(CLI::IsMember({"auto", "bf16", "f32"}))
      ->capture_default_str();
  AddDeviceFlag(*generate, flags->device);
  generate->add_option("--threads", flags->threads, "With --model: compute threads. Default: one a core");
  generate->add_option("--tls-roots", flags->tls_roots, "With --server: PEM file of certificates to trust");
  generate->add_option("--timeout", flags->timeout_seconds, "Seconds after which to give up")
      ->capture_default_str();
  generate->callback([=] { selected([=] { return Generate(*flags, *request); }); });
}

}  // namespace cohort::tools
