#include "tools/cohort/generation_flags.h"

#include <string>
#include <vector>

namespace cohort::tools {

void AddGenerationFlags(CLI::App& app, const std::shared_ptr<v1::GenerateRequest>& request) {
  v1::SamplingParameters* sampling = request->mutable_sampling();
  v1::StoppingCriteria* stopping = request->mutable_stopping();
  app.add_option_function<std::string>(
         "--prompt", [request](const std::string& text) { request->set_text(text); }, "What to go on from")
      ->required();
  // COHORT_FLAG(name, type, message, field, help)
#define COHORT_FLAG(name, type, message, field, help) \
  app.add_option_function<type>(                      \
      name, [request, message](const type& value) { (message)->set_##field(value); }, help)
  COHORT_FLAG("--max-tokens", int32_t, stopping, max_tokens,
              "Tokens to generate at most. Default: what the context holds");
  COHORT_FLAG("--min-tokens", int32_t, stopping, min_tokens, "No end before as many tokens. Default 0");
  COHORT_FLAG("--temperature", float, sampling, temperature, "0: greedy. Default 1");
  COHORT_FLAG("--top-k", int32_t, sampling, top_k, "Draw from the k likeliest tokens. Default 0: all");
  COHORT_FLAG("--top-p", float, sampling, top_p,
              "Draw from the likeliest tokens that reach this probability. Default 1");
  COHORT_FLAG("--min-p", float, sampling, min_p,
              "Draw from tokens at least this likely beside the likeliest. Default 0");
  COHORT_FLAG("--repetition-penalty", float, sampling, repetition_penalty,
              "Above 1: say less again. Default 1");
  COHORT_FLAG("--presence-penalty", float, sampling, presence_penalty, "In [-2, 2]. Default 0");
  COHORT_FLAG("--frequency-penalty", float, sampling, frequency_penalty, "In [-2, 2]. Default 0");
  COHORT_FLAG("--seed", uint64_t, sampling, seed, "The same seed gives the same text. Default: drawn")
      ->check([](const std::string& text) {  // strtoull would take -1 for the largest
        return text.find('-') == std::string::npos ? ""
                                                   : "a seed is a whole number of 0 or more, not " + text;
      });
  COHORT_FLAG("--n", int32_t, sampling, n, "Completions of the prompt. Default 1");
#undef COHORT_FLAG
  app.add_option_function<std::vector<std::string>>(
         "--stop",
         [stopping](const std::vector<std::string>& stops) {
           stopping->mutable_stop()->Add(stops.begin(), stops.end());
         },
         "End where one of these texts appears")
      ->expected(1, -1);
  app.add_flag_callback(
      "--ignore-eos", [stopping] { stopping->set_ignore_eos(true); }, "Go on past the end-of-sequence token");
  app.add_flag_callback(
      "--echo", [request] { request->mutable_response()->set_echo(true); },
      "Print the prompt before its completion");
}

}  // namespace cohort::tools
