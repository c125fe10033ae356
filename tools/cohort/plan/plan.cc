// cohort plan: what a described cluster would do, without the cluster.
#include "tools/cohort/plan/plan.h"

namespace cohort::tools {

void AddPlan(CLI::App& app, const Selected& selected) {
  CLI::App* plan = app.add_subcommand("plan",
                                      "Plans: what collectives would cost on a described cluster, how this "
                                      "machine is described, pipeline schedules, "
                                      "the mesh that trains a model fastest, what moves from one to another, "
                                      "and what an elastic training does when ranks come and go");
  plan->require_subcommand(1);
  AddPlanCollectives(*plan, selected);
  AddPlanTopology(*plan, selected);
  AddPlanPipeline(*plan, selected);
  AddPlanMesh(*plan, selected);
  AddPlanReshard(*plan, selected);
  AddPlanChange(*plan, selected);
}

}  // namespace cohort::tools
