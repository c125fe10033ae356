// Commands of the coordinator's state, as tests write them.
#pragma once

#include <string>
#include <vector>

#include "cohort/v1/cluster_journal.pb.h"

namespace cohort::cluster {

inline v1::ClusterCommand Begin() {
  v1::ClusterCommand command;
  command.mutable_begin();
  return command;
}

inline v1::ClusterCommand Tick() {
  v1::ClusterCommand command;
  command.mutable_tick();
  return command;
}

inline v1::ClusterCommand Join(const std::string& name, const std::string& session, uint64_t last_epoch = 0) {
  v1::ClusterCommand command;
  v1::JoinRequest& join = *command.mutable_join();
  join.set_job("job");
  join.set_name(name);
  join.set_session(session);
  join.set_host("host");
  join.set_pid(7);
  join.set_role(v1::MEMBER_ROLE_LAUNCHED);
  join.set_last_epoch(last_epoch);
  return command;
}

inline v1::ClusterCommand Leave(int64_t id) {
  v1::ClusterCommand command;
  command.mutable_leave()->set_member_id(id);
  return command;
}

inline v1::ClusterCommand Renew(int64_t id) {
  v1::ClusterCommand command;
  command.mutable_renew()->set_member_id(id);
  return command;
}

inline v1::ClusterCommand Advance(int64_t id, uint64_t from, uint64_t to,
                                  const std::vector<std::string>& members,
                                  const std::string& arrangement = "") {
  v1::ClusterCommand command;
  v1::AdvanceEpochRequest& advance = *command.mutable_advance_epoch();
  advance.set_member_id(id);
  advance.set_from(from);
  advance.set_to(to);
  advance.mutable_members()->Add(members.begin(), members.end());
  advance.set_arrangement(arrangement);
  return command;
}

inline v1::ClusterCommand Post(const std::string& name, const std::string& text, int64_t id = 0) {
  v1::ClusterCommand command;
  command.mutable_board_post()->set_name(name);
  command.mutable_board_post()->set_text(text);
  command.mutable_board_post()->set_member_id(id);
  return command;
}

inline v1::ClusterCommand Withdraw(const std::string& name) {
  v1::ClusterCommand command;
  command.mutable_board_withdraw()->set_name(name);
  return command;
}

inline v1::ClusterCommand Answer(const std::string& name, const std::string& text) {
  v1::ClusterCommand command;
  command.mutable_board_answer()->set_name(name);
  command.mutable_board_answer()->set_text(text);
  return command;
}

inline v1::ClusterCommand Put(const std::string& launch, const std::string& key, const std::string& value) {
  v1::ClusterCommand command;
  command.mutable_rendezvous_put()->set_launch_id(launch);
  command.mutable_rendezvous_put()->set_key(key);
  command.mutable_rendezvous_put()->set_value(value);
  return command;
}

inline v1::ClusterCommand Report(int64_t id, uint64_t sequence, v1::EventKind kind, double seconds = 0) {
  v1::ClusterCommand command;
  command.mutable_report()->set_member_id(id);
  command.mutable_report()->set_sequence(sequence);
  command.mutable_report()->set_kind(kind);
  command.mutable_report()->set_words("words");
  command.mutable_report()->set_seconds(seconds);
  return command;
}

// Empty half: only asks.
inline v1::ClusterCommand AskTie(int64_t id, uint64_t after, const std::vector<std::string>& half) {
  v1::ClusterCommand command;
  command.mutable_tie()->set_member_id(id);
  command.mutable_tie()->set_after(after);
  command.mutable_tie()->mutable_half()->Add(half.begin(), half.end());
  return command;
}

inline v1::ClusterCommand AskToLeave(const std::string& name) {
  v1::ClusterCommand command;
  command.mutable_request_leave()->set_name(name);
  command.mutable_request_leave()->set_reason("preempted");
  return command;
}

}  // namespace cohort::cluster
