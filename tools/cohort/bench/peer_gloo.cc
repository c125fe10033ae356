// Gloo over TCP as a peer, where CMake found it.
#include "tools/cohort/bench/peers.h"

#ifdef COHORT_HAVE_GLOO

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/allreduce_halving_doubling.h>
#include <gloo/allreduce_ring_chunked.h>
#include <gloo/alltoall.h>
#include <gloo/broadcast.h>
#include <gloo/math.h>
#include <gloo/reduce_scatter.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <unistd.h>

#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::tools {
namespace {

using comm::Operation;

constexpr std::chrono::minutes kTimeout{2};
constexpr size_t kEntryBytes = 1 << 16;  // an entry of the board: a rank's addresses, one a peer

// Gloo's board over the communicator under test: every rank sets one key when it connects, all at the same
// time, so `set` gathers those of all. Gloo's interface has no errors but exceptions.
class GatheringStore : public gloo::rendezvous::Store {
 public:
  explicit GatheringStore(comm::Communicator& world) : world_(world) {}

  void set(const std::string& key, const std::vector<char>& data) override {
    const std::string text = absl::StrCat(key, std::string(1, '\0'), std::string(data.begin(), data.end()));
    if (text.size() + sizeof(size_t) > kEntryBytes)
      throw std::length_error("too many ranks for Gloo's board");
    std::vector<char> own(kEntryBytes), all(kEntryBytes * world_.size());
    const size_t length = text.size();
    std::memcpy(own.data(), &length, sizeof(length));
    std::memcpy(own.data() + sizeof(length), text.data(), length);
    const std::vector<size_t> counts(world_.size(), kEntryBytes);
    const absl::Status status = world_.AllGather(own.data(), all.data(), counts, DataType::kU8).Wait();
    if (!status.ok()) throw std::runtime_error(std::string(status.message()));
    for (int rank = 0; rank < world_.size(); ++rank) {
      const char* entry = all.data() + rank * kEntryBytes;
      size_t bytes = 0;
      std::memcpy(&bytes, entry, sizeof(bytes));
      const std::string theirs(entry + sizeof(bytes), bytes);
      const size_t split = theirs.find('\0');
      entries_[theirs.substr(0, split)] = {theirs.begin() + static_cast<ptrdiff_t>(split) + 1, theirs.end()};
    }
  }
  std::vector<char> get(const std::string& key) override { return entries_.at(key); }
  void wait(const std::vector<std::string>&) override {}
  void wait(const std::vector<std::string>&, const std::chrono::milliseconds&) override {}

 private:
  comm::Communicator& world_;
  std::map<std::string, std::vector<char>> entries_;
};

// Runs what may throw: Gloo reports everything so.
template <typename Function>
absl::Status Guarded(Function&& function) {
  try {
    function();
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("Gloo: ", error.what()));
  }
}

template <typename Options>
RunOnce Runner(void (*operation)(Options&), std::shared_ptr<Options> options) {
  return [=] { return Guarded([&] { operation(*options); }); };
}

class GlooPeer : public Peer {
 public:
  explicit GlooPeer(std::shared_ptr<gloo::Context> context) : context_(std::move(context)) {}

  std::string name() const override { return "gloo"; }

  std::vector<std::string> Algorithms(const CollectiveCall& call) const override {
    switch (call.operation) {
      case Operation::kAllReduce:
        return {"ring", "bcube", "halving_doubling"};
      case Operation::kReduceScatter:
        return {"halving_doubling"};
      case Operation::kAllGather:
        return {"ring"};
      case Operation::kAllToAll:
        return {"direct"};
      case Operation::kBroadcast:
        return {"binomial"};
      default:
        return {};
    }
  }

  absl::StatusOr<RunOnce> Prepare(const CollectiveCall& call, const std::string& algorithm) override {
    if (call.send_count > INT_MAX) return absl::InvalidArgumentError("Gloo's counts are ints");
    RunOnce run;
    COHORT_RETURN_IF_ERROR(Guarded([&] { run = Make(call, algorithm); }));
    return run;
  }

 private:
  RunOnce Make(const CollectiveCall& call, const std::string& algorithm) {
    auto* send = const_cast<float*>(call.send);  // Gloo's interface takes no const
    const int count = static_cast<int>(call.send_count);
    switch (call.operation) {
      case Operation::kAllReduce: {
        if (algorithm == "halving_doubling")
          return InPlace<gloo::AllreduceHalvingDoubling<float>>(call, count);
        auto options = std::make_shared<gloo::AllreduceOptions>(context_);
        options->setInput(send, call.block);
        options->setOutput(call.recv, call.block);
        options->setAlgorithm(algorithm == "ring" ? gloo::AllreduceOptions::Algorithm::RING
                                                  : gloo::AllreduceOptions::Algorithm::BCUBE);
        // Chosen explicitly: gloo::sum has overloads.
        void (*sum)(void*, const void*, const void*, size_t) = &gloo::sum<float>;
        options->setReduceFunction(sum);
        options->setTimeout(kTimeout);
        return [=] { return Guarded([&] { gloo::allreduce(*options); }); };
      }
      case Operation::kReduceScatter:
        return InPlace<gloo::ReduceScatterHalvingDoubling<float>>(
            call, count, std::vector<int>(call.size, static_cast<int>(call.block)));
      case Operation::kAllGather:
        return Runner(&gloo::allgather, Options<gloo::AllgatherOptions>(call, send));
      case Operation::kAllToAll:
        return Runner(&gloo::alltoall, Options<gloo::AlltoallOptions>(call, send));
      default: {
        auto options = std::make_shared<gloo::BroadcastOptions>(context_);
        options->setOutput(call.recv, call.block);
        options->setRoot(0);
        options->setTimeout(kTimeout);
        return Runner(&gloo::broadcast, options);
      }
    }
  }

  template <typename Type>
  std::shared_ptr<Type> Options(const CollectiveCall& call, float* send) {
    auto options = std::make_shared<Type>(context_);
    options->setInput(send, call.send_count);
    options->setOutput(call.recv, call.recv_count);
    options->setTimeout(kTimeout);
    return options;
  }

  // The older interface works in place: the input goes to a buffer of its own once, and the result of the
  // first run from there; later runs sum sums.
  template <typename Algorithm, typename... Arguments>
  RunOnce InPlace(const CollectiveCall& call, int count, Arguments... arguments) {
    auto buffer = std::make_shared<std::vector<float>>(call.send, call.send + call.send_count);
    auto algorithm =
        std::make_shared<Algorithm>(context_, std::vector<float*>{buffer->data()}, count, arguments...);
    auto first = std::make_shared<bool>(true);
    return [=] {
      return Guarded([&] {
        algorithm->run();
        if (std::exchange(*first, false)) std::copy_n(buffer->data(), call.recv_count, call.recv);
      });
    };
  }

  std::shared_ptr<gloo::Context> context_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Peer>> MakeGlooPeer(comm::Communicator& world) {
  gloo::transport::tcp::attr address;
  // GLOO_SOCKET_IFNAME as in PyTorch; else the address that this host's name has, or the loopback on one
  // host.
  if (const char* interface = std::getenv("GLOO_SOCKET_IFNAME"); interface != nullptr) {
    address.iface = interface;
  } else if (world.topology().num_hosts() > 1) {
    char host[256] = "";
    gethostname(host, sizeof(host) - 1);
    address.hostname = host;
  } else {
    address.hostname = "localhost";
  }
  std::shared_ptr<gloo::Context> context;
  COHORT_RETURN_IF_ERROR(Guarded([&] {
    auto device = gloo::transport::tcp::CreateDevice(address);
    auto meeting = std::make_shared<gloo::rendezvous::Context>(world.rank(), world.size());
    meeting->setTimeout(kTimeout);
    GatheringStore store(world);
    meeting->connectFullMesh(store, device);
    context = meeting;
  }));
  return std::make_unique<GlooPeer>(std::move(context));
}

}  // namespace cohort::tools

#else

namespace cohort::tools {

absl::StatusOr<std::unique_ptr<Peer>> MakeGlooPeer(comm::Communicator&) { return nullptr; }

}  // namespace cohort::tools

#endif  // COHORT_HAVE_GLOO
