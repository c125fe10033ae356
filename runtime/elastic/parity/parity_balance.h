// Which hosts keep the parity of which stripes, evenly.
#pragma once

#include <vector>

namespace cohort::runtime::elastic {

// members[s]: the hosts with data in stripe s, fewer than hosts - each by `each` at most. Gives for each stripe `each`
// further hosts, so that no move of a parity block, nor a chain of moves, from a host to one that keeps at least two
// blocks less is left: with that, the sum of the squares of the loads is the least there is.
std::vector<std::vector<int>> BalanceParity(int hosts, const std::vector<std::vector<int>>& members,
                                            int each);

}  // namespace cohort::runtime::elastic
