// Members of a job whose coordinator dies: cluster_client HOST:PORT MEMBERS ROUNDS. In each round all members meet, one
// advances the epoch, a newcomer is answered on the board, and everyone tells an event. Says "round N" after each, and
// ends with 0 where everything was as it must be.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/elastic/coordinator/board.h"
#include "runtime/elastic/coordinator/client.h"
#include "runtime/elastic/coordinator/rendezvous.h"

namespace cohort::cluster {
namespace {

absl::Time Soon() { return absl::Now() + absl::Seconds(30); }

void Check(const absl::Status& status, const std::string& what) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what.c_str(), status.ToString().c_str());
  std::exit(1);
}

void Check(bool condition, const std::string& what) {
  Check(condition ? absl::OkStatus() : absl::InternalError("is not so"), what);
}

struct Job {
  std::string address;
  int members, rounds;
  std::vector<std::shared_ptr<Client>> clients;

  std::shared_ptr<Client> Joined(const std::string& name, v1::MemberRole role) const {
    ClientOptions options;
    options.coordinator = address;
    options.job = "job";
    options.name = name;
    options.role = role;
    std::shared_ptr<Client> client = *Client::Create(options);
    Check(client->Join(Soon()), name + " joins");
    return client;
  }

  void Meet(int rank, int round) const {
    const auto meeting = GrpcRendezvous(clients[rank], absl::StrCat("round ", round), rank, members);
    Check(meeting->Put(absl::StrCat(rank), absl::StrCat(rank, " of ", round)), "Put");
    for (int peer = 0; peer < members; ++peer) {
      const auto value = meeting->Get(absl::StrCat(peer), Soon());
      Check(value.status(), "Get");
      Check(*value == absl::StrCat(peer, " of ", round), "the value of a peer");
    }
    v1::StepReport report;
    report.set_step(round);
    clients[rank]->SetReport(report);
    clients[rank]->Tell(v1::EVENT_KIND_NOTE, round, absl::StrCat("round ", round));
  }

  void TakeIn(int round) const {
    const auto newcomer = Joined(absl::StrCat("newcomer ", round), v1::MEMBER_ROLE_NEWCOMER);
    const auto post = GrpcJoinBoard(newcomer), answer = GrpcJoinBoard(clients.back());
    const std::string name = absl::StrCat("card ", round);
    Check(post->Post(name, name), "Post");
    std::thread member([&] {
      for (bool answered = false; !answered; absl::SleepFor(absl::Milliseconds(5))) {
        const auto waiting = answer->Waiting();
        Check(waiting.status(), "Waiting");
        for (const auto& [who, text] : *waiting) {
          Check(who == name && text == name, "the only post");
          Check(answer->Answer(who, "come to " + text), "Answer");
          answered = true;
        }
      }
    });
    std::optional<std::string> invited;
    while (!invited.has_value()) {
      const auto answered = post->Answered(name);
      Check(answered.status(), "Answered");
      invited = *answered;
    }
    member.join();
    Check(*invited == "come to " + name, "the answer");
    Check(post->Withdraw(name), "Withdraw");
    Check(newcomer->Leave("done", Soon()), "Leave");
  }

  int Run() {
    std::vector<std::string> names;
    for (int rank = 0; rank < members; ++rank) {
      names.push_back(absl::StrCat("member ", rank));
      clients.push_back(Joined(names.back(), v1::MEMBER_ROLE_LAUNCHED));
    }
    std::vector<int64_t> ids;
    for (const auto& client : clients) ids.push_back(client->standing().member_id);
    for (int round = 1; round <= rounds; ++round) {
      std::vector<std::thread> threads;
      for (int rank = 0; rank < members; ++rank) threads.emplace_back([=, this] { Meet(rank, round); });
      for (std::thread& thread : threads) thread.join();
      const auto number = static_cast<uint64_t>(round);
      const auto epoch = clients[round % members]->AdvanceEpoch(
          {number - 1, number, names, absl::StrCat("round ", round), round, "test"}, Soon());
      Check(epoch.status(), "AdvanceEpoch");
      Check(epoch->number() == number, "the epoch");
      const auto stale = clients[0]->AdvanceEpoch({number - 1, number, {names[0]}, "stale", 0, ""}, Soon());
      Check(absl::IsFailedPrecondition(stale.status()),
            "who is behind is refused, not " + stale.status().ToString());
      TakeIn(round);
      std::printf("round %d\n", round);
      std::fflush(stdout);
    }
    for (int rank = 0; rank < members; ++rank) {
      Check(clients[rank]->Flush(Soon()), "everything told is taken");
      const Standing standing = clients[rank]->standing();
      Check(!standing.evicted && standing.member_id == ids[rank], "a member stays the same");
    }
    return 0;
  }
};

}  // namespace
}  // namespace cohort::cluster

int main(int argc, char** argv) {
  cohort::cluster::Job job;
  if (argc != 4 || !absl::SimpleAtoi(argv[2], &job.members) || !absl::SimpleAtoi(argv[3], &job.rounds)) {
    std::fprintf(stderr, "usage: cluster_client HOST:PORT MEMBERS ROUNDS\n");
    return 2;
  }
  job.address = argv[1];
  return job.Run();
}
