#include "runtime/elastic/coordinator/etcd.h"

#include <httplib.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {
namespace {

using nlohmann::json;

std::string Base64(const std::string& bytes) { return absl::Base64Escape(bytes); }

absl::StatusOr<json> Parse(const std::string& text) {
  json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return absl::UnavailableError("etcd: an answer that is not JSON");
  return parsed;
}

// The field as bytes; absent fields are empty in this encoding.
absl::StatusOr<std::string> Bytes(const json& object, const char* field) {
  const auto found = object.find(field);
  std::string bytes;
  if (found == object.end()) return bytes;
  if (!found->is_string() || !absl::Base64Unescape(found->get_ref<const std::string&>(), &bytes)) {
    return absl::UnavailableError(absl::StrCat("etcd: the field ", field, " of an answer is unreadable"));
  }
  return bytes;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Pairs(const json& answer) {
  std::vector<std::pair<std::string, std::string>> pairs;
  const auto found = answer.find("kvs");
  if (found == answer.end()) return pairs;
  for (const json& pair : *found) {
    COHORT_ASSIGN_OR_RETURN(std::string key, Bytes(pair, "key"));
    COHORT_ASSIGN_OR_RETURN(std::string value, Bytes(pair, "value"));
    pairs.emplace_back(std::move(key), std::move(value));
  }
  return pairs;
}

absl::Status Refused(const std::string& endpoint, int status, const std::string& body) {
  const json parsed = json::parse(body, nullptr, /*allow_exceptions=*/false);
  const std::string why = parsed.is_object() ? parsed.value("message", body) : body;
  const std::string message = absl::StrCat("etcd at ", endpoint, " answers ", status, ": ", why);
  if (why.find("space exceeded") != std::string::npos) return absl::ResourceExhaustedError(message);
  // 5xx: no leader, or it is starting.
  return status >= 500 ? absl::UnavailableError(message) : absl::InternalError(message);
}

}  // namespace

std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  if (prefix.empty()) return std::string(1, '\0');  // of all keys
  ++prefix.back();
  return prefix;
}

absl::StatusOr<std::string> Etcd::Call(const std::string& path, const std::string& body) {
  std::vector<std::string> why;  // of each endpoint
  for (size_t turn = 0; turn < endpoints_.size(); ++turn) {
    const std::string& endpoint = endpoints_.front();
    httplib::Client http("http://" + endpoint);
    const time_t seconds = absl::ToInt64Seconds(policy::kEtcdTimeout);
    http.set_connection_timeout(seconds);
    http.set_read_timeout(seconds);
    http.set_write_timeout(seconds);
    const httplib::Result result = http.Post(path, body, "application/json");
    if (result) {
      if (result->status == 200) return result->body;
      absl::Status status = Refused(endpoint, result->status, result->body);
      if (!absl::IsUnavailable(status)) return status;
      why.emplace_back(status.message());
    } else {
      why.push_back(
          absl::StrCat("etcd at ", endpoint, " does not answer (", httplib::to_string(result.error()), ")"));
    }
    std::rotate(endpoints_.begin(), endpoints_.begin() + 1, endpoints_.end());
  }
  return absl::UnavailableError(absl::StrJoin(why, "; "));
}

absl::StatusOr<std::optional<std::string>> Etcd::Get(const std::string& key) {
  COHORT_ASSIGN_OR_RETURN(const std::string text, Call("/v3/kv/range", json{{"key", Base64(key)}}.dump()));
  COHORT_ASSIGN_OR_RETURN(const json answer, Parse(text));
  COHORT_ASSIGN_OR_RETURN(auto pairs, Pairs(answer));
  if (pairs.empty()) return std::nullopt;
  return std::move(pairs.front().second);
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Etcd::List(const std::string& prefix,
                                                                            const std::string& first,
                                                                            int page) {
  std::vector<std::pair<std::string, std::string>> all;
  std::string from = std::max(prefix, first);
  for (;;) {
    const json request = {{"key", Base64(from)}, {"range_end", Base64(PrefixEnd(prefix))}, {"limit", page}};
    COHORT_ASSIGN_OR_RETURN(const std::string text, Call("/v3/kv/range", request.dump()));
    COHORT_ASSIGN_OR_RETURN(const json answer, Parse(text));
    COHORT_ASSIGN_OR_RETURN(auto pairs, Pairs(answer));
    for (auto& pair : pairs) all.push_back(std::move(pair));
    if (!answer.value("more", false) || pairs.empty()) return all;
    from = all.back().first + '\0';
  }
}

absl::Status Etcd::Put(const std::string& key, const std::string& value) {
  return Call("/v3/kv/put", json{{"key", Base64(key)}, {"value", Base64(value)}}.dump()).status();
}

absl::StatusOr<bool> Etcd::PutIf(const std::string& key, const std::optional<std::string>& value,
                                 const std::vector<std::pair<std::string, std::string>>& pairs) {
  json compare = {{"key", Base64(key)}, {"result", "EQUAL"}};
  if (value.has_value()) {
    compare["target"] = "VALUE";
    compare["value"] = Base64(*value);
  } else {
    compare["target"] = "CREATE";
    compare["create_revision"] = "0";
  }
  json puts = json::array();
  for (const auto& [name, text] : pairs) {
    puts.push_back({{"request_put", {{"key", Base64(name)}, {"value", Base64(text)}}}});
  }
  const json request = {{"compare", json::array({compare})}, {"success", puts}};
  COHORT_ASSIGN_OR_RETURN(const std::string text, Call("/v3/kv/txn", request.dump()));
  COHORT_ASSIGN_OR_RETURN(const json answer, Parse(text));
  return answer.value("succeeded", false);
}

absl::Status Etcd::Delete(const std::string& first, const std::string& end) {
  return Call("/v3/kv/deleterange", json{{"key", Base64(first)}, {"range_end", Base64(end)}}.dump()).status();
}

}  // namespace cohort::cluster
