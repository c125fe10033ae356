// Reads what a flight recorder wrote.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "comm/flight_recorder.h"

namespace cohort::tools {

// The inverse of comm::ToJson. Errors name the place in the text.
absl::StatusOr<comm::FlightRecord> ParseFlightRecord(const std::string& text);

// Errors name the file.
absl::StatusOr<comm::FlightRecord> ReadFlightRecord(const std::string& path);

}  // namespace cohort::tools
