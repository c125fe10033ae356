// cohort bench: this machine, measured.
#include "tools/cohort/bench/bench.h"

namespace cohort::tools {

void AddBench(CLI::App& app, const Selected& selected) {
  CLI::App* bench = app.add_subcommand("bench",
                                       "Measure this machine: training steps, decoding, serving, "
                                       "collectives, transfers, tokens, attention, pipelines, datatypes, "
                                       "checkpoints, snapshots, the coordinator");
  bench->require_subcommand(1);
  AddBenchTrainStep(*bench, selected);
  AddBenchDecode(*bench, selected);
  AddBenchServe(*bench, selected);
  AddBenchCollectives(*bench, selected);
  AddBenchTransfer(*bench, selected);
  AddBenchTokens(*bench, selected);
  AddBenchAttention(*bench, selected);
  AddBenchHybrid(*bench, selected);
  AddBenchPipeline(*bench, selected);
  AddBenchDatatype(*bench, selected);
  AddBenchCheckpoint(*bench, selected);
  AddBenchCoordinator(*bench, selected);
  AddBenchFaults(*bench, selected);
  AddBenchSnapshot(*bench, selected);
}

}  // namespace cohort::tools
