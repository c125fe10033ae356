// The documentation of a configuration: its schema's keys, types and comments, as a YAML file would show
// them.
#pragma once

#include <string>

#include "google/protobuf/descriptor.h"

namespace cohort::runtime {

// `schema` is a message of config.proto: cohort::v1::TrainConfig::descriptor().
std::string ConfigHelp(const google::protobuf::Descriptor& schema);

}  // namespace cohort::runtime
