#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cohort/v1/inference.grpc.pb.h"
#include "serving/client.h"
#include "serving/server.h"
#include "tests/serving/fake_runner.h"
#include "tests/support/temp_folder.h"

namespace cohort::serving {
namespace {

using ::testing::HasSubstr;

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }
bool Ignore(const v1::GenerateStreamResponse&) { return true; }

struct GrpcServiceTest : ::testing::Test {
  void Start(EngineOptions options = {}, FakeModel model = HashModel) {
    options.check_every_step = true;
    const RunnerInfo info{2, 64, 4, kByteVocabulary, 200};
    auto created = Engine::Create(std::make_unique<FakeRunner>(info, std::move(model), control),
                                  ByteTokenizer(), options, metrics);
    ASSERT_TRUE(created.ok()) << created.status();
    engine = *std::move(created);
    v1::GetModelInfoResponse described;
    described.set_name("fake");
    described.set_ranks(2);
    auto started = Server::Start({"127.0.0.1:0", "", ""}, *engine, ByteTokenizer(), described);
    ASSERT_TRUE(started.ok()) << started.status();
    server = *std::move(started);
    ASSERT_GT(server->port(), 0);
    client = *Client::Create(absl::StrCat("127.0.0.1:", server->port()));
  }
  static v1::GenerateRequest Request(const std::string& text, int max_tokens, uint64_t seed = 5) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_sampling()->set_seed(seed);
    request.mutable_stopping()->set_max_tokens(max_tokens);
    return request;
  }
  bool WaitUntilIdle() {
    for (int i = 0; i < 1000; ++i) {
      const EngineGauges gauges = engine->gauges();
      if (gauges.running + gauges.waiting == 0 && gauges.cache_usage == 0) return true;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }

  std::shared_ptr<FakeControl> control = std::make_shared<FakeControl>();
  Metrics metrics{"fake"};
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Server> server;
  std::unique_ptr<Client> client;
};

TEST_F(GrpcServiceTest, UnaryAndStreamSayTheSame) {
  Start();
  v1::GenerateRequest request = Request("tell me", 40);
  request.mutable_sampling()->set_n(3);
  request.mutable_response()->set_logprobs(2);
  request.mutable_response()->set_prompt_logprobs(1);
  request.mutable_response()->set_echo(true);
  request.set_request_id("mine");
  const auto unary = client->Generate(request, Soon());
  ASSERT_TRUE(unary.ok()) << unary.status();
  int messages = 0, prompts = 0, usages = 0;
  auto stream = client->GenerateStream(request, Soon(), [&](const v1::GenerateStreamResponse& part) {
    ++messages;
    prompts += part.has_prompt();
    usages += part.has_usage();
    EXPECT_EQ(part.has_prompt(), messages == 1);
    EXPECT_EQ(part.request_id(), "mine");
    return true;
  });
  ASSERT_TRUE(stream.ok()) << stream.status();
  EXPECT_EQ(prompts, 1);
  EXPECT_EQ(usages, 1);
  EXPECT_EQ(unary->completions_size(), 3);
  EXPECT_EQ(unary->prompt().token_ids_size(), 8);
  EXPECT_EQ(unary->prompt().logprobs_size(), 7);
  EXPECT_EQ(unary->usage().prompt_tokens(), 8);
  const auto by_index = [](const auto& a, const auto& b) { return a.index() < b.index(); };
  v1::GenerateResponse a = *unary, b = *stream;
  for (auto* response : {&a, &b}) {
    std::sort(response->mutable_completions()->begin(), response->mutable_completions()->end(), by_index);
  }
  EXPECT_EQ(a.DebugString(), b.DebugString());
  for (const auto& completion : unary->completions()) {
    EXPECT_EQ(completion.logprobs_size(), completion.token_ids_size());
    EXPECT_THAT(completion.text(), ::testing::StartsWith("tell me"));
    EXPECT_NE(completion.finish_reason(), v1::FINISH_REASON_UNSPECIFIED);
  }
}

TEST_F(GrpcServiceTest, SeedsAndNames) {
  Start();
  v1::GenerateRequest request = Request("seed", 20);
  const auto first = client->Generate(request, Soon()), second = client->Generate(request, Soon());
  EXPECT_EQ(first->completions(0).text(), second->completions(0).text());
  EXPECT_THAT(first->request_id(), ::testing::StartsWith("cohort-"));
  EXPECT_NE(first->request_id(), second->request_id());
  request.mutable_sampling()->clear_seed();
  const auto third = client->Generate(request, Soon()), fourth = client->Generate(request, Soon());
  EXPECT_NE(third->completions(0).text(), fourth->completions(0).text());
  request.set_model("fake");
  EXPECT_TRUE(client->Generate(request, Soon()).ok());
  request.set_model("another");
  const auto unknown = client->Generate(request, Soon());
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("'fake' is"));
}

TEST_F(GrpcServiceTest, StopStringsAcrossTokens) {
  Start({}, Recite("The end. Not shown.", 4));  // <s> and three letters
  v1::GenerateRequest request = Request("abc", 50);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->add_stop("end.");
  std::string streamed;
  const auto answer = client->GenerateStream(request, Soon(), [&](const auto& part) {
    for (const auto& completion : part.completions()) streamed += completion.text();
    return true;
  });
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(streamed, "The ");
  EXPECT_EQ(answer->completions(0).matched_stop(), "end.");
  EXPECT_EQ(answer->completions(0).finish_reason(), v1::FINISH_REASON_STOP);
}

TEST_F(GrpcServiceTest, InvalidRequests) {
  Start();
  v1::GenerateRequest request = Request("abc", 5);
  request.mutable_sampling()->set_temperature(-1);
  for (const auto& status : {client->Generate(request, Soon()).status(),
                             client->GenerateStream(request, Soon(), Ignore).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("sampling.temperature"));
  }
}

TEST_F(GrpcServiceTest, TokenizeDetokenizeAndModelInfo) {
  Start();
  v1::TokenizeRequest tokenize;
  tokenize.set_text("hi");
  const auto tokens = client->Tokenize(tokenize, Soon());
  ASSERT_TRUE(tokens.ok());
  EXPECT_THAT(tokens->token_ids(), ::testing::ElementsAre(kBos, 'h', 'i'));
  EXPECT_THAT(tokens->tokens(), ::testing::ElementsAre("<s>", "h", "i"));
  tokenize.set_add_special_tokens(false);
  EXPECT_EQ(client->Tokenize(tokenize, Soon())->token_ids_size(), 2);
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = tokens->token_ids();
  EXPECT_EQ(client->Detokenize(detokenize, Soon())->text(), "hi");
  detokenize.set_skip_special_tokens(false);
  EXPECT_EQ(client->Detokenize(detokenize, Soon())->text(), "<s>hi");
  detokenize.add_token_ids(9999);
  EXPECT_EQ(client->Detokenize(detokenize, Soon()).status().code(), absl::StatusCode::kInvalidArgument);
  const auto info = client->GetModelInfo(Soon());
  EXPECT_EQ(info->name(), "fake");
  EXPECT_EQ(info->ranks(), 2);
}

TEST_F(GrpcServiceTest, ADisconnectedClientFreesItsPages) {
  control->Allow(3);
  Start({}, Recite(std::string(500, 'z'), 4));
  int messages = 0;
  std::thread releaser([&] {
    ASSERT_TRUE(control->WaitForSteps(3));
    absl::SleepFor(absl::Milliseconds(100));  // the cancellation is there before the step that runs ends
    control->Allow(1);
  });
  const auto answer =
      client->GenerateStream(Request("abc", 190), Soon(), [&](const auto&) { return ++messages < 2; });
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kCancelled);
  releaser.join();
  EXPECT_TRUE(WaitUntilIdle());
  EXPECT_LE(control->steps(), 4);
}

TEST_F(GrpcServiceTest, TheClientsDeadlineFreesItsPages) {
  Start({}, [](absl::Span<const int32_t> history) {
    absl::SleepFor(absl::Milliseconds(5));
    return Recite(std::string(500, 'z'), 0)(history);
  });
  const absl::Time begin = absl::Now();
  for (bool stream : {false, true}) {
    const absl::Time deadline = absl::Now() + absl::Milliseconds(100);
    const auto answer = stream ? client->GenerateStream(Request("abc", 190), deadline, Ignore)
                               : client->Generate(Request("abc", 190), deadline);
    EXPECT_EQ(answer.status().code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_TRUE(WaitUntilIdle());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(1));  // two whole answers would take two seconds
}

TEST_F(GrpcServiceTest, AFullQueueIsResourceExhausted) {
  EngineOptions options;
  options.max_sequences = 1;
  options.max_queued_requests = 1;
  control->Allow(0);
  Start(options, Recite("ok", 4));
  std::vector<std::thread> threads;
  std::atomic<int> ok = 0, exhausted = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const auto answer = client->Generate(Request("abc", 5), Soon());
      ok += answer.ok();
      exhausted += answer.status().code() == absl::StatusCode::kResourceExhausted;
    });
  }
  for (int i = 0; i < 2000 && exhausted < 5; ++i) absl::SleepFor(absl::Milliseconds(5));
  control->FreeRun();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(ok + exhausted, 8);
  EXPECT_GE(exhausted, 5);  // two ranks run one each and one waits
  EXPECT_GE(ok, 1);
}

TEST_F(GrpcServiceTest, ASlowClientHoldsUpNobody) {
  Start({}, Recite(std::string(500, 'z'), 4));
  v1::GenerateRequest slow = Request("abc", 190);
  slow.mutable_response()->set_logprobs(20);
  slow.mutable_sampling()->set_n(16);
  int messages = 0;
  std::thread reader([&] {
    const auto answer = client->GenerateStream(slow, Soon(), [&](const auto&) {
      absl::SleepFor(absl::Milliseconds(++messages == 1 ? 400 : 0));
      return true;
    });
    ASSERT_TRUE(answer.ok());
    for (const auto& completion : answer->completions()) EXPECT_EQ(completion.token_ids_size(), 190);
  });
  absl::SleepFor(absl::Milliseconds(50));
  const absl::Time begin = absl::Now();
  auto other = Client::Create(absl::StrCat("127.0.0.1:", server->port()), {"", true});
  EXPECT_TRUE((*other)->Generate(Request("abc", 5), Soon()).ok());
  EXPECT_LT(absl::Now() - begin, absl::Milliseconds(1000));
  reader.join();
  EXPECT_LT(messages, 16 * 190);  // deltas were merged
}

TEST_F(GrpcServiceTest, DrainingFinishesAndRefuses) {
  control->Allow(3);
  Start({}, Recite("a whole answer", 4));
  EXPECT_TRUE(*client->Healthy("", Soon()));
  EXPECT_TRUE(*client->Healthy("cohort.v1.Inference", Soon()));
  EXPECT_EQ(client->Healthy("unknown", Soon()).status().code(), absl::StatusCode::kNotFound);
  std::thread running([&] {
    const auto answer = client->Generate(Request("abc", 100), Soon());
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->completions(0).finish_reason(), v1::FINISH_REASON_STOP);
  });
  ASSERT_TRUE(control->WaitForSteps(3));
  std::thread drain([&] { server->Drain(Soon()); });
  for (int i = 0; i < 1000 && *client->Healthy("", Soon()); ++i) absl::SleepFor(absl::Milliseconds(2));
  EXPECT_FALSE(*client->Healthy("cohort.v1.Inference", Soon()));
  absl::Status refused;
  for (int i = 0; i < 100; ++i) {  // health changes just before the engine does
    refused = client->Generate(Request("abc", 1), absl::Now() + absl::Milliseconds(200)).status();
    if (refused.code() == absl::StatusCode::kUnavailable) break;
  }
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  control->FreeRun();
  drain.join();
  running.join();
}

TEST_F(GrpcServiceTest, DrainingAbortsAfterItsGrace) {
  control->Allow(3);
  Start({}, Recite(std::string(1000, 'z'), 4));
  std::thread running([&] {
    const auto answer = client->Generate(Request("abc", 150), Soon());
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->completions(0).finish_reason(), v1::FINISH_REASON_ABORTED);
    EXPECT_GE(answer->completions(0).token_ids_size(), 3);
  });
  ASSERT_TRUE(control->WaitForSteps(3));
  std::thread release([&] {
    absl::SleepFor(absl::Milliseconds(100));
    control->Allow(1);
  });
  server->Drain(absl::Now() + absl::Milliseconds(30));
  release.join();
  running.join();
}

TEST_F(GrpcServiceTest, ALostRankAnswersEverybody) {
  control->FailAfter(4);
  Start();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const auto answer = i % 2 ? client->Generate(Request("abc", 100), Soon())
                                : client->GenerateStream(Request("abc", 100), Soon(), Ignore);
      EXPECT_THAT(std::string(answer.status().message()), HasSubstr("rank 1 was lost"));
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(GrpcServiceTest, ServerGoesWhileRequestsRun) {
  control->Allow(2);
  Start({}, [](absl::Span<const int32_t> history) {
    absl::SleepFor(absl::Milliseconds(2));  // far from its end when the engine goes
    return Recite(std::string(1000, 'z'), 4)(history);
  });
  std::thread running([&] { EXPECT_FALSE(client->Generate(Request("abc", 150), Soon()).ok()); });
  ASSERT_TRUE(control->WaitForSteps(2));
  control->FreeRun();
  engine.reset();  // as in a fatal error: the engine answers, then the server ends
  running.join();
  server.reset();
}

TEST_F(GrpcServiceTest, Tls) {
  Start();
  const TempFolder folder;
  const std::string certificate = folder.Path("certificate.pem"), key = folder.Path("key.pem");
  const std::string command = absl::StrCat(
      "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext "
      "subjectAltName=IP:127.0.0.1 -keyout ",
      key, " -out ", certificate, " 2>/dev/null");
  if (std::system(command.c_str()) != 0) GTEST_SKIP() << "the openssl command cannot make a certificate here";
  auto tls = Server::Start({"127.0.0.1:0", certificate, key}, *engine, ByteTokenizer(), {});
  ASSERT_TRUE(tls.ok()) << tls.status();
  const std::string address = absl::StrCat("127.0.0.1:", (*tls)->port());
  auto trusting = Client::Create(address, {certificate, false});
  const auto answer = (*trusting)->Generate(Request("secret", 4), Soon());
  EXPECT_TRUE(answer.ok()) << answer.status();
  auto plain = Client::Create(address);
  EXPECT_FALSE((*plain)->Generate(Request("secret", 4), absl::Now() + absl::Seconds(1)).ok());
  EXPECT_FALSE(Client::Create(address, {folder.Path("missing.pem"), false}).ok());
}

TEST_F(GrpcServiceTest, AddressesAndTlsFilesAreChecked) {
  Start();
  const auto start = [&](ServerOptions options) {
    return Server::Start(options, *engine, ByteTokenizer(), {}).status();
  };
  const absl::Status taken = start({absl::StrCat("127.0.0.1:", server->port()), "", ""});
  EXPECT_EQ(taken.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(taken.message()), HasSubstr("cannot listen"));
  EXPECT_THAT(std::string(start({"127.0.0.1:82471", "", ""}).message()), HasSubstr("a port is 0"));
  EXPECT_THAT(std::string(start({"127.0.0.1:0", "/nonexistent.pem", "/nonexistent.key"}).message()),
              HasSubstr("tls_certificate '/nonexistent.pem'"));
  EXPECT_THAT(std::string(start({"127.0.0.1:0", "/nonexistent.pem", ""}).message()), HasSubstr("together"));
}

}  // namespace
}  // namespace cohort::serving
