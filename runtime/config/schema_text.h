// The text of proto/cohort/v1/config.proto, for its comments: compiled descriptors do not have them.
#pragma once

namespace cohort::runtime {

extern const char kConfigSchemaText[];

}  // namespace cohort::runtime
