#include "serving/load_generator.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <thread>

#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/random/philox.h"
#include "serving/policy.h"

namespace cohort::serving {
namespace {

// Of one load: options, prompts and the clock.
class Load {
 public:
  Load(const LoadOptions& options, Client& client, int32_t vocabulary)
      : options_(options),
        client_(client),
        vocabulary_(vocabulary),
        begin_(absl::Now()),
        records_(options.requests) {}

  std::vector<RequestRecord> Run() {
    if (options_.rate > 0) {
      RunOpen();
    } else {
      RunClosed();
    }
    return std::move(records_);
  }

 private:
  void RunClosed() {
    std::atomic<int> next = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < std::min(options_.concurrency, options_.requests); ++i) {
      threads.emplace_back([&] {
        for (int request; (request = next.fetch_add(1)) < options_.requests;) Send(request);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  void RunOpen() {
    std::vector<std::thread> threads;
    double at = 0;
    for (int request = 0; request < options_.requests; ++request) {
      absl::SleepFor(absl::Seconds(at) - Elapsed());
      threads.emplace_back([this, request] { Send(request); });
      // Gaps of a Poisson process are exponential.
      const auto bits = runtime::RandomBits(options_.seed, runtime::RandomPurpose::kSampling, request, 1);
      at -= std::log1p(-runtime::UniformDouble(bits[0], bits[1])) / options_.rate;
    }
    for (std::thread& thread : threads) thread.join();
  }

  v1::GenerateRequest RequestOf(int number) const {
    v1::GenerateRequest request;
    auto& ids = *request.mutable_token_ids()->mutable_ids();
    if (options_.prompts.empty()) {
      for (int i = 0; i < options_.prompt_tokens; ++i) {
        const auto bits =
            runtime::RandomBits(options_.seed, runtime::RandomPurpose::kSampling, number, 2 + i);
        ids.Add(static_cast<int32_t>(bits[0] % static_cast<uint32_t>(vocabulary_)));
      }
    } else {
      const auto& prompt = options_.prompts[number % options_.prompts.size()];
      ids.Add(prompt.begin(), prompt.end());
    }
    request.mutable_sampling()->set_seed(options_.seed + static_cast<uint64_t>(number));
    request.mutable_stopping()->set_max_tokens(options_.output_tokens);
    request.mutable_stopping()->set_ignore_eos(true);
    return request;
  }

  void Send(int number) {
    RequestRecord& record = records_[number];
    const v1::GenerateRequest request = RequestOf(number);
    record.prompt_tokens = request.token_ids().ids_size();
    record.sent = Elapsed();
    const auto answer = client_.GenerateStream(request, absl::Now() + options_.request_timeout,
                                               [&](const v1::GenerateStreamResponse& part) {
                                                 int tokens = 0;
                                                 for (const auto& completion : part.completions())
                                                   tokens += completion.token_ids_size();
                                                 if (tokens > 0)
                                                   record.chunks.emplace_back(Elapsed(), tokens);
                                                 return true;
                                               });
    record.ended = Elapsed();
    record.status = answer.status();
  }

  absl::Duration Elapsed() const { return absl::Now() - begin_; }

  const LoadOptions& options_;
  Client& client_;
  const int32_t vocabulary_;
  const absl::Time begin_;
  std::vector<RequestRecord> records_;  // a thread writes its own
};

absl::Status Check(const LoadOptions& options) {
  if (options.requests < 1 || options.output_tokens < 1 || !(options.rate >= 0) || std::isinf(options.rate) ||
      (options.rate == 0 && options.concurrency < 1) ||
      (options.prompts.empty() && options.prompt_tokens < 1)) {
    return absl::InvalidArgumentError(
        "load: requests, concurrency (or rate), prompt_tokens and output_tokens must be positive");
  }
  for (const auto& prompt : options.prompts) {
    if (prompt.empty()) return absl::InvalidArgumentError("load: a prompt is empty");
  }
  return absl::OkStatus();
}

}  // namespace

int RequestRecord::output_tokens() const {
  return std::accumulate(chunks.begin(), chunks.end(), 0,
                         [](int sum, const auto& chunk) { return sum + chunk.second; });
}

absl::Duration RequestRecord::tpot() const {
  const int tokens = output_tokens();
  return tokens < 2 ? absl::ZeroDuration() : (end_to_end() - ttft()) / (tokens - 1);
}

Distribution DistributionOf(std::vector<double> samples) {
  Distribution result;
  if (samples.empty()) return result;
  std::sort(samples.begin(), samples.end());
  const auto percentile = [&](double share) {
    const double place = share * static_cast<double>(samples.size() - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, samples.size() - 1);
    return samples[below] + (place - static_cast<double>(below)) * (samples[above] - samples[below]);
  };
  result.mean = std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size());
  result.median = percentile(0.5);
  result.p90 = percentile(0.9);
  result.p99 = percentile(0.99);
  return result;
}

LoadReport Summarize(const std::vector<RequestRecord>& records, const GoodputLimits& limits) {
  LoadReport report;
  std::vector<double> ttft, tpot, itl, e2e;
  int64_t output = 0, prompt = 0, good = 0;
  absl::Duration first = absl::InfiniteDuration(), last = absl::ZeroDuration();
  for (const RequestRecord& record : records) {
    first = std::min(first, record.sent);
    last = std::max(last, record.ended);
    if (!record.status.ok()) {
      if (report.failed++ == 0) report.first_error = record.status.ToString();
      continue;
    }
    ++report.completed;
    output += record.output_tokens();
    prompt += record.prompt_tokens;
    ttft.push_back(absl::ToDoubleMilliseconds(record.ttft()));
    e2e.push_back(absl::ToDoubleMilliseconds(record.end_to_end()));
    if (record.output_tokens() > 1) tpot.push_back(absl::ToDoubleMilliseconds(record.tpot()));
    for (size_t i = 1; i < record.chunks.size(); ++i) {
      itl.push_back(absl::ToDoubleMilliseconds(record.chunks[i].first - record.chunks[i - 1].first));
    }
    good += (!limits.ttft || record.ttft() <= *limits.ttft) &&
            (!limits.tpot || record.tpot() <= *limits.tpot) &&
            (!limits.end_to_end || record.end_to_end() <= *limits.end_to_end);
  }
  report.ttft_ms = DistributionOf(std::move(ttft));
  report.tpot_ms = DistributionOf(std::move(tpot));
  report.itl_ms = DistributionOf(std::move(itl));
  report.e2e_ms = DistributionOf(std::move(e2e));
  report.duration_s = records.empty() ? 0 : absl::ToDoubleSeconds(last - first);
  if (report.duration_s <= 0) return report;
  report.request_throughput = report.completed / report.duration_s;
  report.output_throughput = static_cast<double>(output) / report.duration_s;
  report.total_throughput = static_cast<double>(output + prompt) / report.duration_s;
  report.goodput = static_cast<double>(good) / report.duration_s;
  return report;
}

absl::StatusOr<LoadReport> RunLoad(const LoadOptions& options) {
  COHORT_RETURN_IF_ERROR(Check(options));
  COHORT_ASSIGN_OR_RETURN(const auto client, Client::Create(options.address, options.client));
  COHORT_RETURN_IF_ERROR(client->WaitUntilConnected(absl::Now() + policy::kConnectTimeout));
  COHORT_ASSIGN_OR_RETURN(const auto info, client->GetModelInfo(absl::Now() + policy::kConnectTimeout));
  return Summarize(Load(options, *client, info.vocabulary_size()).Run(), options.limits);
}

}  // namespace cohort::serving
