// Two ranks on two hosts with several interfaces each: large writes and large collectives keep arriving whole while one
// of the interfaces fails. Says "ready" when both sides know that all rails work; whoever runs it breaks one then, and
// mends it when it says "survived". Ends with 0 where every byte was right, all rails carried bytes before, and one
// fewer works afterwards.
//   rails_job writes|collectives RAILS SECONDS
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/communicator.h"
#include "comm/rendezvous.h"
#include "comm/transfer/transfer_engine.h"

namespace cohort::comm {
namespace {

constexpr size_t kBytes = 8 << 20;

absl::Status Failed(const std::string& what) { return absl::InternalError(what); }

uint64_t BytesSent(int rail) {
  std::ifstream file(absl::StrCat("/sys/class/net/eth", rail, "/statistics/tx_bytes"));
  uint64_t bytes = 0;
  file >> bytes;
  return bytes;
}

std::byte Pattern(int rank, int round, size_t index) {
  return static_cast<std::byte>((index * 2654435761u >> 13) + 31 * static_cast<size_t>(rank) +
                                7 * static_cast<size_t>(round));
}

absl::Status Writes(Rendezvous& board, int rails, absl::Duration time) {
  const int rank = board.rank();
  transfer::Options options;
  options.name = absl::StrCat("rank ", rank);
  COHORT_ASSIGN_OR_RETURN(const auto engine, transfer::TransferEngine::Create(options));
  std::vector<std::byte> source(kBytes);
  COHORT_ASSIGN_OR_RETURN(const auto from, engine->Register(source.data(), kBytes));
  COHORT_ASSIGN_OR_RETURN(const auto target, engine->Allocate(kBytes));
  COHORT_RETURN_IF_ERROR(board.Put(absl::StrCat("card", rank), engine->Card()));
  COHORT_ASSIGN_OR_RETURN(const std::string card,
                          board.Get(absl::StrCat("card", 1 - rank), absl::Now() + absl::Seconds(20)));
  COHORT_ASSIGN_OR_RETURN(const auto peer, engine->AddPeer(card));
  COHORT_RETURN_IF_ERROR(engine->Barrier({peer}, 1).Wait());
  const auto live = [&] { return engine->LiveRails(peer).value_or(0); };
  for (const absl::Time until = absl::Now() + absl::Seconds(10); live() != rails && absl::Now() < until;)
    absl::SleepFor(absl::Milliseconds(1));
  if (live() != rails) return Failed(absl::StrCat(live(), " of ", rails, " rails work"));
  COHORT_RETURN_IF_ERROR(engine->Barrier({peer}, 2).Wait());
  std::vector<uint64_t> before(rails);
  for (int rail = 0; rail < rails; ++rail) before[rail] = BytesSent(rail);
  const absl::Time end = absl::Now() + time;
  for (int round = 0;; ++round) {
    for (size_t i = 0; i < kBytes; ++i) source[i] = Pattern(rank, round, i);
    const Work write =
        engine->Write({.peer = peer, .from = from, .to = target.region, .bytes = kBytes, .immediate = 1});
    COHORT_RETURN_IF_ERROR(write.Wait());
    COHORT_RETURN_IF_ERROR(engine->Expect({.immediate = 1}).Wait());
    for (size_t i = 0; i < kBytes; ++i) {
      if (target.data[i] != Pattern(1 - rank, round, i))
        return Failed(absl::StrCat("byte ", i, " of round ", round));
    }
    if (engine->Count(1) != 0) return Failed("an immediate was counted twice");
    // The other one's next write goes where this one has looked: it may be late, as what says that its own write is
    // over was lost with the rail.
    COHORT_RETURN_IF_ERROR(engine->Barrier({peer}, 3).Wait());
    if (round == 0) {
      for (int rail = 0; rail < rails; ++rail) {
        if (BytesSent(rail) - before[rail] < kBytes / rails / 2)
          return Failed(absl::StrCat("rail ", rail, " is idle"));
      }
      if (rank == 0) std::puts("ready"), std::fflush(stdout);
    }
    // Rank 0 says whether that is enough. Not over MPI, which has no way around what fails.
    constexpr uint32_t kMore = 2, kEnough = 3;
    const bool more = absl::Now() < end || live() == rails;
    if (rank == 0)
      COHORT_RETURN_IF_ERROR(engine->Write({.peer = peer, .immediate = more ? kMore : kEnough}).Wait());
    while (rank == 1 && engine->Count(kMore) + engine->Count(kEnough) == 0)
      absl::SleepFor(absl::Microseconds(100));
    if (rank == 0 ? !more : engine->Count(kEnough) > 0) break;
    if (rank == 1) COHORT_RETURN_IF_ERROR(engine->Expect({.immediate = kMore}).Wait());
    if (absl::Now() > end + absl::Seconds(20)) return Failed("no rail has failed");
  }
  if (live() != rails - 1) return Failed(absl::StrCat(live(), " rails are left"));
  if (rank == 0) std::puts("survived"), std::fflush(stdout);
  return engine->Barrier({peer}, 4).Wait();
}

// All-reduces, until some time after a failure.
absl::Status Collectives(std::shared_ptr<Rendezvous> board, int rails, absl::Duration time) {
  COHORT_ASSIGN_OR_RETURN(const auto comm, Communicator::Create(board));
  const int rank = board->rank();
  constexpr size_t kCount = kBytes / sizeof(float);
  std::vector<float> own(kCount), sum(kCount);
  std::vector<uint64_t> before(rails);
  for (int rail = 0; rail < rails; ++rail) before[rail] = BytesSent(rail);
  const absl::Time end = absl::Now() + time;
  // Long enough for the failure to be noticed in the middle.
  for (int round = 0;; ++round) {
    for (size_t i = 0; i < kCount; ++i) own[i] = static_cast<float>(i % 1000 + round + 7 * rank);
    COHORT_RETURN_IF_ERROR(comm->AllReduce(own.data(), sum.data(), kCount, DataType::kF32).Wait());
    for (size_t i = 0; i < kCount; ++i) {
      if (sum[i] != static_cast<float>(2 * (i % 1000 + round) + 7))
        return Failed(absl::StrCat("sum ", i, " of round ", round));
    }
    if (round == 0) {
      for (int rail = 0; rail < rails; ++rail) {
        if (BytesSent(rail) - before[rail] < kBytes / rails / 4)
          return Failed(absl::StrCat("rail ", rail, " is idle"));
      }
      if (rank == 0) std::puts("ready"), std::fflush(stdout);
    }
    // Small ones, which are taken in turn as well; rank 0 says whether that is enough.
    float more = absl::Now() < end ? 1 : 0;
    COHORT_RETURN_IF_ERROR(comm->Broadcast(&more, 1, DataType::kF32, 0).Wait());
    if (more == 0) break;
  }
  if (rank == 0) std::puts("survived"), std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status Run(const std::string& what, int rails, absl::Duration time) {
  COHORT_ASSIGN_OR_RETURN(const auto board, MpiRendezvous());
  return what == "writes" ? Writes(*board, rails, time) : Collectives(board, rails, time);
}

}  // namespace
}  // namespace cohort::comm

int main(int argc, char** argv) {
  const absl::Status status =
      argc == 4 ? cohort::comm::Run(argv[1], std::atoi(argv[2]), absl::Seconds(std::atof(argv[3])))
                : absl::InvalidArgumentError("rails_job writes|collectives RAILS SECONDS");
  if (!status.ok()) std::fprintf(stderr, "rails_job: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
