// Token routing, from C.
#include "comm/tokens/token_routing.h"

#include <cstddef>

#include "comm/c/handles.h"
#include "comm/check.h"

using namespace cohort::comm;     // NOLINT: below are functions of C
using namespace cohort::comm::c;  // NOLINT

static_assert(sizeof(cohort_routed_expert) == sizeof(RoutedExpert) &&
              offsetof(cohort_routed_expert, weight) == offsetof(RoutedExpert, weight));

struct cohort_token_routing {
  std::unique_ptr<TokenRouting> routing;
};

cohort_status cohort_route_tokens(cohort_comm* comm, const int32_t* experts, const float* weights,
                                  size_t num_tokens, int k, const int32_t* rank_of_expert, size_t num_experts,
                                  cohort_token_routing** routing) {
  if (routing != nullptr) *routing = nullptr;
  return Guard([&]() -> absl::Status {
    if (routing == nullptr) return NullArgument("where the routing goes");
    if (comm == nullptr) return NullArgument("the communicator");
    // What is wrong here is an error of this rank alone if the others are not told: Create does that.
    TokenChoices choices;
    choices.k = k;
    const size_t chosen = k > 0 && experts != nullptr ? num_tokens * static_cast<size_t>(k) : 0;
    choices.experts = {experts, chosen};
    if (weights != nullptr) choices.weights = {weights, chosen};
    if (rank_of_expert != nullptr) choices.rank_of_expert = {rank_of_expert, num_experts};
    if (experts == nullptr && num_tokens > 0) choices.k = 0;
    auto handle = std::make_unique<cohort_token_routing>();
    COHORT_ASSIGN_OR_RETURN(handle->routing, TokenRouting::Create(*comm->communicator, choices));
    *routing = handle.release();
    return absl::OkStatus();
  });
}

void cohort_token_routing_free(cohort_token_routing* routing) {
  (void)Guard([&] {
    delete routing;
    return absl::OkStatus();
  });
}

size_t cohort_token_routing_received(const cohort_token_routing* routing) {
  return routing == nullptr ? 0 : routing->routing->num_received();
}

cohort_status cohort_token_routing_row(const cohort_token_routing* routing, size_t row,
                                       cohort_routed_row* routed) {
  return Guard([&]() -> absl::Status {
    if (routing == nullptr) return NullArgument("the routing");
    if (routed == nullptr) return NullArgument("where the row goes");
    const TokenRouting& tokens = *routing->routing;
    if (row >= tokens.num_received()) {
      return absl::InvalidArgumentError(absl::StrCat("row ", row, " of ", tokens.num_received()));
    }
    const auto experts = tokens.experts(row);
    *routed = {tokens.source(row), tokens.token(row), experts.size(),
               reinterpret_cast<const cohort_routed_expert*>(experts.data())};
    return absl::OkStatus();
  });
}

cohort_status cohort_token_dispatch(cohort_token_routing* routing, const void* tokens, void* received,
                                    size_t width, cohort_dtype dtype, cohort_work** work) {
  return Starting(dtype, work, [&]() -> Work {
    if (routing == nullptr) return Work(NullArgument("the routing"));
    return routing->routing->Dispatch(tokens, received, width, TypeOf(dtype));
  });
}

cohort_status cohort_token_combine(cohort_token_routing* routing, const void* received, void* tokens,
                                   size_t width, cohort_dtype dtype, cohort_work** work) {
  return Starting(dtype, work, [&]() -> Work {
    if (routing == nullptr) return Work(NullArgument("the routing"));
    return routing->routing->Combine(received, tokens, width, TypeOf(dtype));
  });
}
