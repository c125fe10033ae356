#include "runtime/model/parameter.h"

#include <algorithm>

#include "comm/check.h"
#include "runtime/model/spread.h"
#include "runtime/ops/ops.h"

namespace cohort::runtime {
namespace {

int64_t SizeOfShape(const Shape& shape) {
  int64_t size = 1;
  for (int64_t dim : shape) size *= dim;
  return size;
}

// FNV-1a, 64 bits (Fowler, Noll, Vo): part of what a run's seed means, so std::hash will not do.
uint64_t HashOfName(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// The part of a parameter that is here, drawn run by run: a run is what lies together in the whole parameter.
void DrawNormal(const Parameter& parameter, const Tensor& target, uint64_t seed) {
  const uint64_t hash = HashOfName(parameter.name);
  const Tensor flat = target.View({target.size()});
  ForEachRun(parameter.piece(), [&](const PieceRun& run) {
    target.device().ops().FillNormal(flat.Slice(run.offset, run.offset + run.count),
                                     seed ^ (hash & 0xffffffff00000000u), static_cast<uint32_t>(hash),
                                     static_cast<uint64_t>(run.full), parameter.stddev);
  });
}

template <typename Member>
Tensor StackOf(const std::vector<Parameter*>& stack, const Member& member) {
  COHORT_CHECK(!stack.empty(), "a stack of no parameters");
  const Tensor& first = member(*stack.front());
  COHORT_CHECK(first.defined(), "the stack of %s has no such tensor here", stack.front()->name.c_str());
  Shape shape = stack.front()->shape;
  for (size_t i = 0; i < stack.size(); ++i) {
    const Tensor& tensor = member(*stack[i]);
    COHORT_CHECK(
        tensor.raw() == static_cast<char*>(first.raw()) + i * first.bytes() && stack[i]->shape == shape,
        "%s does not follow %s in memory", stack[i]->name.c_str(), stack.front()->name.c_str());
  }
  shape.insert(shape.begin(), static_cast<int64_t>(stack.size()));
  return Tensor::Wrap(first.device(), std::make_shared<Tensor>(first), first.raw(), shape, first.dtype());
}

}  // namespace

Placement PlacementIn(const TensorGroup& tensor) {
  return tensor.size() == 1 ? Placement::kReplicated : Placement::kTensor;
}

Split SplitOver(const TensorGroup& tensor, int dim) {
  return {.dim = dim, .part = tensor.rank(), .parts = tensor.size()};
}

int64_t Parameter::elements() const { return SizeOfShape(shape); }

int64_t ParameterBucket::size() const {
  int64_t size = 0;
  for (const Parameter* parameter : parameters) size += parameter->elements();
  return size;
}

Piece Parameter::piece() const {
  const int64_t extent = shape.empty() ? 1 : shape[static_cast<size_t>(split_dim)];
  return Piece::Box(name, full_shape, split_dim, split_begin, split_begin + extent);
}

void ParameterBucket::Bind() {
  int64_t offset = 0;
  for (Parameter* parameter : parameters) {
    const int64_t size = parameter->elements();
    const auto part = [&](const Tensor& flat) {
      return flat.defined() ? flat.Slice(offset, offset + size).View(parameter->shape) : Tensor();
    };
    parameter->value = part(value);
    parameter->master = part(master);
    parameter->grad = part(grad);
    parameter->other_grads.clear();
    for (const Tensor& other : other_grads) parameter->other_grads.push_back(part(other));
    offset += size;
  }
}

Parameter* ParameterGroup::Add(std::string name, Shape shape, Init init, double stddev, bool decay,
                               Placement placement, Split split) {
  COHORT_CHECK(buckets_.empty(), "%s is added to %s after Allocate", name.c_str(), name_.c_str());
  auto parameter = std::make_unique<Parameter>();
  parameter->name = std::move(name);
  parameter->full_shape = shape;
  const auto dim = static_cast<size_t>(split.dim);
  const RowRange rows = RowsOf(shape[dim], split.part, split.parts);
  shape[dim] = rows.size();
  parameter->shape = std::move(shape);
  parameter->split_dim = split.dim;
  parameter->split_begin = rows.begin;
  parameter->placement = placement;
  parameter->init = init;
  parameter->decay = decay;
  parameter->stddev = stddev;
  parameters_.push_back(std::move(parameter));
  return parameters_.back().get();
}

std::vector<Parameter*> ParameterGroup::AddStack(const std::vector<std::string>& names, Shape shape,
                                                 double stddev, Placement placement) {
  std::vector<Parameter*> stack;
  for (const std::string& name : names) {
    stack.push_back(Add(name, shape, Init::kNormal, stddev, /*decay=*/true, placement));
  }
  return stack;
}

Parameter* ParameterGroup::AddBuffer(std::string name, Shape shape) {
  Parameter* parameter = Add(std::move(name), std::move(shape), Init::kZeros, 0, /*decay=*/false);
  parameter->buffer = true;
  return parameter;
}

int64_t ParameterGroup::StateBytes(const Device& device, DataType compute, bool trainable) const {
  const DataType state = device.state_dtype();
  int64_t bytes = 0;
  for (const auto& parameter : parameters_) {
    const int64_t size = SizeOfShape(parameter->shape);
    if (parameter->buffer) {
      bytes += size * static_cast<int64_t>(SizeOf(state));
      continue;
    }
    bytes += size * static_cast<int64_t>(SizeOf(compute));
    const int64_t states = (compute == state ? 0 : 1) + 3;  // master, gradient, two moments
    if (trainable) bytes += size * states * static_cast<int64_t>(SizeOf(state));
  }
  return bytes;
}

void ParameterGroup::Partition(Device& device) {
  COHORT_CHECK(buckets_.empty(), "%s is allocated twice", name_.c_str());
  for (const auto& parameter : parameters_) {
    if (parameter->buffer) {
      parameter->value = parameter->master = Tensor::Zeros(device, parameter->shape, device.state_dtype());
      continue;
    }
    auto bucket = std::find_if(buckets_.begin(), buckets_.end(), [&](const ParameterBucket& other) {
      return other.placement == parameter->placement && other.decay == parameter->decay;
    });
    if (bucket == buckets_.end()) {
      bucket = buckets_.emplace(buckets_.end());
      bucket->placement = parameter->placement;
      bucket->decay = parameter->decay;
    }
    bucket->parameters.push_back(parameter.get());
  }
}

void ParameterGroup::Allocate(Device& device, DataType compute, bool trainable) {
  Partition(device);
  const DataType state = device.state_dtype();
  for (ParameterBucket& bucket : buckets_) {
    const int64_t size = bucket.size();
    bucket.value = Tensor::Empty(device, {size}, compute);
    if (trainable) {
      bucket.master = compute == state ? bucket.value : Tensor::Empty(device, {size}, state);
      bucket.grad = Tensor::Zeros(device, {size}, state);
    }
    bucket.Bind();
  }
}

void ParameterGroup::Initialize(uint64_t seed) {
  for (const auto& parameter : parameters_) {
    const Tensor& target = parameter->master.defined() ? parameter->master : parameter->value;
    COHORT_CHECK(target.defined(), "%s is initialised before Allocate", parameter->name.c_str());
    Ops& ops = target.device().ops();
    switch (parameter->init) {
      case Init::kOnes:
        ops.Fill(target, 1);
        break;
      case Init::kZeros:
        ops.Fill(target, 0);
        break;
      case Init::kNormal:
        DrawNormal(*parameter, target, seed);
        break;
    }
    if (parameter->value.raw() != target.raw()) ops.Copy(target, parameter->value);
  }
}

void ParameterGroup::ZeroGrad() {
  for (ParameterBucket& bucket : buckets_) {
    if (bucket.grad.defined()) bucket.grad.device().ops().Fill(bucket.grad, 0);
  }
}

Tensor StackedValue(const std::vector<Parameter*>& stack) {
  return StackOf(stack, [](const Parameter& p) -> const Tensor& { return p.value; });
}
Tensor StackedGrad(const std::vector<Parameter*>& stack, size_t source) {
  return StackOf(stack, [source](const Parameter& p) -> const Tensor& {
    return source == 0 ? p.grad : p.other_grads.at(source - 1);
  });
}

}  // namespace cohort::runtime
