#include "comm/locality.h"

#include <hwloc.h>

#include <cstdlib>
#include <memory>

namespace cohort::comm {
namespace {

struct DestroyTopology {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
struct FreeBitmap {
  void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};

int Count(hwloc_topology_t topology, hwloc_obj_type_t type) {
  const int count = hwloc_get_nbobjs_by_type(topology, type);
  return count < 0 ? 0 : count;
}

// The smallest object of the type that holds the whole set: its number for the operating system, or -1. Memory is not
// in the tree of processors, so all objects of a type are looked at.
int Holding(hwloc_topology_t topology, hwloc_obj_type_t type, hwloc_const_cpuset_t set) {
  int number = -1, smallest = 0;
  for (hwloc_obj_t at = nullptr; (at = hwloc_get_next_obj_by_type(topology, type, at)) != nullptr;) {
    if (at->cpuset == nullptr || !hwloc_bitmap_isincluded(set, at->cpuset)) continue;
    const int weight = hwloc_bitmap_weight(at->cpuset);
    if (number >= 0 && weight >= smallest) continue;
    smallest = weight;
    number = at->os_index == HWLOC_UNKNOWN_INDEX ? static_cast<int>(at->logical_index)
                                                 : static_cast<int>(at->os_index);
  }
  return number;
}

}  // namespace

Locality FindLocality() {
  Locality found;
  hwloc_topology_t made = nullptr;
  if (hwloc_topology_init(&made) != 0) return found;
  const std::unique_ptr<hwloc_topology, DestroyTopology> topology(made);
  // Neither devices nor anything else that takes time to look for.
  (void)hwloc_topology_set_all_types_filter(made, HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
  (void)hwloc_topology_set_io_types_filter(made, HWLOC_TYPE_FILTER_KEEP_NONE);
  (void)hwloc_topology_set_type_filter(made, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
  (void)hwloc_topology_set_type_filter(made, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
  (void)hwloc_topology_set_type_filter(made, HWLOC_OBJ_L3CACHE, HWLOC_TYPE_FILTER_KEEP_ALL);
  if (hwloc_topology_load(made) != 0) return found;
  found.sockets = Count(made, HWLOC_OBJ_PACKAGE);
  found.numa_domains = Count(made, HWLOC_OBJ_NUMANODE);
  found.last_level_caches = Count(made, HWLOC_OBJ_L3CACHE);
  found.cores = Count(made, HWLOC_OBJ_CORE);
  found.threads = Count(made, HWLOC_OBJ_PU);

  const std::unique_ptr<hwloc_bitmap_s, FreeBitmap> bound(hwloc_bitmap_alloc());
  if (bound == nullptr || hwloc_get_cpubind(made, bound.get(), HWLOC_CPUBIND_PROCESS) != 0) return found;
  // What a container hides is nowhere.
  (void)hwloc_bitmap_and(bound.get(), bound.get(), hwloc_topology_get_topology_cpuset(made));
  if (hwloc_bitmap_iszero(bound.get())) return found;
  found.socket = Holding(made, HWLOC_OBJ_PACKAGE, bound.get());
  found.numa = Holding(made, HWLOC_OBJ_NUMANODE, bound.get());
  if (char* text = nullptr; hwloc_bitmap_list_asprintf(&text, bound.get()) >= 0 && text != nullptr) {
    found.bound_to = text;
    std::free(text);
  }
  return found;
}

}  // namespace cohort::comm
