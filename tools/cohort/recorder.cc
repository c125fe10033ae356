// cohort recorder: what flight records of the ranks of a job say about who was late, or called something else.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "comm/check.h"
#include "comm/flight_diagnosis.h"
#include "tools/cohort/command.h"
#include "tools/cohort/flight_file.h"

namespace cohort::tools {
namespace {

absl::Status Run(const std::vector<std::string>& files) {
  std::vector<comm::FlightRecord> records;
  for (const std::string& file : files) {
    COHORT_ASSIGN_OR_RETURN(comm::FlightRecord record, ReadFlightRecord(file));
    records.push_back(std::move(record));
  }
  std::fputs(comm::Describe(comm::Diagnose(records)).c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace

void AddRecorder(CLI::App& app, const Selected& selected) {
  CLI::App* recorder = app.add_subcommand(
      "recorder",
      "Who is late, from the flight records that COHORT_FLIGHT_RECORDER=FOLDER makes ranks leave");
  auto files = std::make_shared<std::vector<std::string>>();
  recorder->add_option("files", *files, "Flight records, one of each rank")->required();
  recorder->callback([=] { selected([files] { return Run(*files); }); });
}

}  // namespace cohort::tools
