// The communicator: a group of ranks and the operations they make together. The room's front door.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "comm/data_type.h"
#include "comm/datatype/datatype.h"
#include "comm/datatype/way.h"
#include "comm/membership/edit.h"
#include "comm/policy.h"
#include "comm/rendezvous.h"
#include "comm/topology.h"
#include "comm/work.h"

namespace cohort::comm {

enum class ReduceOp : uint8_t { kSum, kMin, kMax, kProduct };

enum class Operation : uint8_t;  // operation.h
struct QuantizedCall;            // codec/quantized_collectives.h
struct TokenCall;                // tokens/token_routing.h

struct CommunicatorOptions {
  // How long an operation waits for its peers before it fails and names the late ones.
  absl::Duration timeout = policy::kTimeout;
  // How algorithms are chosen: comm/tuner/README.md. Equal on all ranks, or nobody gets a communicator. The variables
  // named count for more where they are set.
  std::string collectives = {};   // COHORT_COLLECTIVES: a line as `all-reduce:0-32k=ring;all-to-all=bruck`
  std::string tuning_table = {};  // COHORT_TUNING_TABLE: a file of `cohort bench collectives --tune`
  // COHORT_TOPOLOGY: a file that declares where ranks are and what messages cost (topology_file.h), `measure` (also
  // where all ranks are on one host), or `default`. Empty: hwloc and the launcher say where, and prices are measured
  // where ranks are on several hosts.
  std::string topology = {};
  // How messages of datatypes leave this rank, and land on it; empty: as measured prices say.
  std::optional<LayoutWay> layout_way = std::nullopt;
};

// A fixed group of ranks. Operations return at once; every rank of the group must call the same operations in
// the same order with matching sizes (send and recv excepted, which match by peer and tag). Counts are
// elements, not bytes; zero is legal everywhere. `send == recv` is in place where stated. Sums of bf16 and
// f16 are accumulated in f32 and rounded once a hop; all ranks get the same bits. Thread-safe, but calls from
// several threads must still be in one order on every rank.
class Communicator {
 public:
  virtual ~Communicator() = default;

  // Meets the other ranks at `rendezvous` and connects to them.
  static absl::StatusOr<std::unique_ptr<Communicator>> Create(std::shared_ptr<Rendezvous> rendezvous,
                                                              CommunicatorOptions options = {});
  // A group of one, which needs nobody: every operation is a local copy.
  static std::unique_ptr<Communicator> Single();

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const Topology& topology() const = 0;
  // How long operations that this rank starts from now on in this group wait for their peers; first and in groups that are
  // split from it as the options say. A rank may wait longer for others than these do for it.
  virtual absl::Duration timeout() const = 0;
  virtual void SetTimeout(absl::Duration timeout) = 0;

  // Collective: ranks that say the same color form a group, ordered by (key, rank). A negative color: no
  // group for this rank (nullptr).
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Split(int color, int key) = 0;

  // recv[i] = op over ranks of send[i], i < count. In place: send == recv.
  virtual Work AllReduce(const void* send, void* recv, size_t count, DataType dtype,
                         ReduceOp op = ReduceOp::kSum) = 0;
  // counts[r] elements go to rank r; send holds sum(counts), laid out in rank order; recv gets
  // counts[rank()].
  virtual Work ReduceScatter(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                             ReduceOp op = ReduceOp::kSum) = 0;
  // recv holds sum(counts) in rank order; send has counts[rank()]. In place: send at its own place in recv.
  virtual Work AllGather(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype) = 0;
  virtual Work Broadcast(void* buffer, size_t count, DataType dtype, int root) = 0;
  // recv[i] of the root = op over ranks of send[i], i < count. Elsewhere recv is not looked at. In place at the
  // root: send == recv.
  virtual Work Reduce(const void* send, void* recv, size_t count, DataType dtype, int root,
                      ReduceOp op = ReduceOp::kSum) = 0;
  // counts[r] elements of rank r, the same counts on all ranks. send has counts[rank()]; recv of the root holds
  // sum(counts) in rank order, elsewhere it is not looked at. In place at the root: send at its own place in recv.
  virtual Work Gather(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                      int root) = 0;
  // The other way: send of the root holds sum(counts) in rank order, elsewhere it is not looked at; recv gets
  // counts[rank()]. In place at the root: recv at its own place in send.
  virtual Work Scatter(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                       int root) = 0;
  // count elements to every rank, in rank order, and as many from each.
  virtual Work AllToAll(const void* send, void* recv, size_t count, DataType dtype) = 0;
  // send_counts[r] elements to rank r and recv_counts[r] from it, both packed in rank order without gaps.
  virtual Work AllToAllV(const void* send, absl::Span<const size_t> send_counts, void* recv,
                         absl::Span<const size_t> recv_counts, DataType dtype) = 0;
  // The same where every rank knows every count: counts[a * size() + b] elements go from rank a to rank b. Then the
  // ranks of a host can send what they have for another host in one message. A rank that calls this
  // while another calls AllToAllV is an error on both.
  virtual Work AllToAllMatrix(const void* send, void* recv, absl::Span<const size_t> counts,
                              DataType dtype) = 0;
  // Matched by (peer, tag), in order among equals. tag >= 0. A size other than the sender's is an error on
  // both.
  virtual Work Send(const void* buffer, size_t count, DataType dtype, int peer, int tag = 0) = 0;
  virtual Work Recv(void* buffer, size_t count, DataType dtype, int peer, int tag = 0) = 0;
  // The same for `count` of a datatype, one extent apart, from `buffer` on: the bytes that Datatype::Pack makes of
  // them, which the receiver may describe differently, or as so many kU8. The type is copied. Between packing and
  // copying run by run the prices of the machine choose (datatype/way.h).
  virtual Work Send(const void* buffer, size_t count, const Datatype& type, int peer, int tag = 0) = 0;
  virtual Work Recv(void* buffer, size_t count, const Datatype& type, int peer, int tag = 0) = 0;
  virtual Work Barrier() = 0;
  // What TokenRouting (tokens/token_routing.h) calls.
  virtual Work MoveTokens(const TokenCall& call) = 0;
  // A collective with a codec on the wire: what the functions of codec/quantized_collectives.h call.
  virtual Work Quantized(const QuantizedCall& call) = 0;

  // ---- Choice of algorithms: comm/tuner/README.md ----

  // Collective: these are the group's overrides from now on, instead of those it had. An error on all ranks where they
  // differ or are wrong; then nothing changes. Nothing may be in flight.
  virtual absl::Status SetCollectives(absl::string_view collectives) = 0;
  // Where the ranks are and what messages cost, as a topology file: what algorithms are chosen by.
  virtual std::string TopologyText() = 0;
  // The algorithm of an operation of so many bytes: of the buffer, or of all parts.
  virtual std::string AlgorithmOf(Operation operation, size_t bytes) = 0;

  // ---- Edits of the group in place: comm/membership/README.md ----

  // Joins a group whose members call Grow with the same board, and waits until they do.
  static absl::StatusOr<std::unique_ptr<Communicator>> Join(std::shared_ptr<JoinBoard> board,
                                                            CommunicatorOptions options = {});
  // The survivors agree who is lost, and go on without: same object, memory and connections, ranks renumbered in the
  // old order, next epoch. Every member calls it, after an error or at a point that all know; what is in flight on a
  // group with an error ends everywhere. A member that did not come in time learns it from its next call:
  // FAILED_PRECONDITION. Not while another thread uses the group.
  virtual absl::StatusOr<MembershipChange> Shrink(EditOptions options = {}) = 0;
  // The same, and takes in processes that wait at the board. With options.replace they take the ranks of those who
  // are lost or leave.
  virtual absl::StatusOr<MembershipChange> Grow(std::shared_ptr<JoinBoard> board,
                                                EditOptions options = {}) = 0;
  // Ends what is in flight in this group and in those that were split from it, on all members, with this status. So do
  // operations that are started afterwards, until the group is edited (Shrink, also where nobody is lost); those that
  // were split from it before have to be edited too, or split anew.
  virtual void Abort(const absl::Status& why) = 0;
  // How often the group was edited. Messages of another epoch are never taken for this one's.
  virtual uint32_t epoch() const = 0;
  // By rank: the number of a member for the life of the world, which errors name.
  virtual const std::vector<int>& members() const = 0;

  // The last operations of this process, of all its groups, as JSON: what began, what ended and how, who is awaited.
  // `cohort recorder` tells from those of several ranks who is late. With COHORT_FLIGHT_RECORDER=FOLDER in the
  // environment, the first operation that fails leaves it there.
  virtual std::string FlightRecord() const = 0;
};

}  // namespace cohort::comm
