// Which members make up a quorum, as one rank knows it: comm::EditOptions::counted_below.
//
// Newcomers hold no state until they enter a mesh, and must not outvote those that do: a side of newcomers alone would go on
// from an old checkpoint. Ranks do not learn at one moment that newcomers have entered, so in between a quorum needs the
// majority of those before and the majority of all (as in the joint consensus of Raft: Ongaro & Ousterhout, 2014, section 6):
//
//   before   {n}          members below n, the first newcomer
//   entering {n, all}     from before the first operation of entering, in which every member takes part
//   entered  {all}        the mesh is entered, which takes every member that has been entering
//
// So whatever two ranks know at the same epoch, they have a bound in common, and no two sides have a quorum each.
#pragma once

#include <utility>
#include <vector>

namespace cohort::parallel {

// A value. Not thread-safe.
class CountedMembers {
 public:
  // Of a rank that was there from the start, or that has joined and does not know yet who counts.
  static CountedMembers OfFounder() { return CountedMembers({kAll}); }
  static CountedMembers OfNewcomer() { return CountedMembers({kNobody}); }

  // An edit has taken in members from number `first` on.
  void Came(int first);
  // The members say that of them those from `first` on are new. What a founder knows already; it tells a newcomer.
  void Hear(int first);
  // All who are here begin to enter a mesh.
  void Enter();
  void Entered();
  // It is not entered after all; known to all before anybody has entered.
  void Stay();

  // For EditOptions::counted_below.
  const std::vector<int>& bounds() const { return bounds_; }

 private:
  static constexpr int kNobody = 0;
  static const int kAll;

  explicit CountedMembers(std::vector<int> bounds) : bounds_(std::move(bounds)) {}

  std::vector<int> bounds_;  // ascending
};

}  // namespace cohort::parallel
