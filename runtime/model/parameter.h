// Parameters: named tensors in groups, each group's memory flat, so that a strategy can gather, reduce and
// free a whole group at once, and the optimizer updates it in one pass.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/model/piece.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

// What a parameter starts as, before a checkpoint is read.
enum class Init : uint8_t { kNormal, kOnes, kZeros };

// Which ranks hold copies of a parameter: all that have its block, those with the same part of its matrices, or those
// with the same experts.
enum class Placement : uint8_t { kReplicated, kTensor, kExpert };

// Which part of a parameter is here: of `parts` along dimension `dim`, as RowsOf (spread.h) cuts it.
struct Split {
  int dim = 0;
  int part = 0, parts = 1;
};
class TensorGroup;
// Of a matrix that the ranks of `tensor` divide along `dim`.
Placement PlacementIn(const TensorGroup& tensor);
Split SplitOver(const TensorGroup& tensor, int dim);

struct Parameter {
  std::string name;   // as in a Hugging Face checkpoint
  Shape shape;        // of what is here
  Shape full_shape;   // of the whole, as in a checkpoint
  int split_dim = 0;  // here are [split_begin, split_begin + shape[split_dim]) along it
  int64_t split_begin = 0;
  Placement placement = Placement::kReplicated;
  Init init = Init::kNormal;
  bool decay = true;  // whether weight decay applies (matrices: yes; norms: no)
  double stddev = 0;  // of Init::kNormal
  // Kept and saved but never optimised (a gate's balancing bias): value and master are one state tensor, no
  // grad.
  bool buffer = false;
  // Of tied embeddings: the head's own (DecoderPart::head_copy). It is in no norm and no checkpoint; the embedding is.
  bool copy = false;

  int64_t elements() const;

  // Views into the group's flat tensors, set by ParameterGroup::Allocate.
  Tensor value;  // compute type: what layers multiply by
  Tensor
      master;   // state type: what the optimizer updates; the same memory as value where the types are equal
  Tensor grad;  // state type: layers accumulate into it; undefined in a model made for inference
  // Where gradients from tokens of several source ranks stay apart: those of the second source on.
  std::vector<Tensor> other_grads;

  // What is here, as a piece of the whole.
  Piece piece() const;
};

// A run of parameters in a group with one placement and one decay: a flat tensor of each kind.
struct ParameterBucket {
  Placement placement;
  bool decay;
  std::vector<Parameter*> parameters;
  Tensor value, master, grad;  // [size], parameters in order; grad and master undefined for inference
  std::vector<Tensor> other_grads = {};  // the same, of further source ranks

  int64_t size() const;  // elements of the parameters

  // Makes each parameter's tensors views of the flat ones; again after a flat one was replaced. An undefined
  // flat tensor leaves its views undefined.
  void Bind();
};

// The parameters that are used together: a block's, the embedding's, the head's.
class ParameterGroup {
 public:
  explicit ParameterGroup(std::string name) : name_(std::move(name)) {}
  ParameterGroup(ParameterGroup&&) = default;

  const std::string& name() const { return name_; }

  // Before Allocate. `shape` is the whole parameter's; this rank holds the part that `split` says. The pointer stays
  // valid as long as the group.
  Parameter* Add(std::string name, Shape shape, Init init, double stddev, bool decay,
                 Placement placement = Placement::kReplicated, Split split = {});
  // n parameters of one shape that lie one after another in memory: Stacked(first, n) is then [n, shape...].
  std::vector<Parameter*> AddStack(const std::vector<std::string>& names, Shape shape, double stddev,
                                   Placement placement);

  // A buffer, starting at zero; in no bucket.
  Parameter* AddBuffer(std::string name, Shape shape);

  // Bytes that Allocate will take, and where trainable an optimizer's two moments of state type.
  int64_t StateBytes(const Device& device, DataType compute, bool trainable) const;
  // Makes the buckets, without flat tensors, and the buffers: for an owner that makes them itself.
  void Partition(Device& device);
  // Partition, and the flat tensors. trainable: with master and grad.
  void Allocate(Device& device, DataType compute, bool trainable);
  // Values drawn as each parameter's init says: Philox of (seed, hash of the name, element index in the whole
  // parameter), so that they do not depend on which rank holds what.
  void Initialize(uint64_t seed);
  void ZeroGrad();

  std::vector<std::unique_ptr<Parameter>>& parameters() { return parameters_; }
  std::vector<ParameterBucket>& buckets() { return buckets_; }

 private:
  std::string name_;
  std::vector<std::unique_ptr<Parameter>> parameters_;
  std::vector<ParameterBucket> buckets_;
};

// The stack that AddStack made, as one tensor [n, shape...] (value or grad of the first parameter, extended).
Tensor StackedValue(const std::vector<Parameter*>& stack);
// source > 0: of Parameter::other_grads.
Tensor StackedGrad(const std::vector<Parameter*>& stack, size_t source = 0);

}  // namespace cohort::runtime
