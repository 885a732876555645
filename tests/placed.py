"""Where a graph would lie on a machine with GPUs, told without one.

TensorFlow registers its kernels for GPUs on any machine, and with them which of
their arguments lie in the host's memory (memory_types.cc).
"""

import contextlib
import functools
from unittest import mock

import tensorflow.compat.v1 as tf
from tensorflow.python.framework import kernels

from console import program
from pooling import device

_ALWAYS_ON_HOST = (tf.string, tf.resource, tf.variant)
# Made into other operations before a run, between which int32 is the host's.
_CALLS = (
  "If",
  "PartitionedCall",
  "StatefulPartitionedCall",
  "StatelessIf",
  "StatelessWhile",
  "While",
)


@contextlib.contextmanager
def pretended(num_gpus):
  """Graphs are built as for so many GPUs; sessions are to place softly."""
  with (
    mock.patch.object(program, "gpus", lambda: [None] * num_gpus),
    mock.patch.object(device, "has_gpu", lambda: num_gpus > 0),
  ):
    yield


def operations(graph):
  """Yields a graph's operations and those of its functions, at any depth."""
  graphs, seen = [graph], set()
  while graphs:
    each = graphs.pop()
    for name, function in each._functions.items():
      if name not in seen:
        seen.add(name)
        graphs.append(function.graph)
    yield from each.get_operations()


@functools.cache
def is_on_host(op):
  """Whether an operation is asked to be on a CPU."""
  if not op.device and op.inputs and op.inputs[0].dtype == tf.resource:
    return is_on_host(op.inputs[0].op)  # It is where its variable is.
  return "CPU" in op.device.upper()


def kernel(op):
  """What TensorFlow runs of an operation on a GPU: `KernelDef`, or None."""
  names, _ = _kernels(op.type)
  return _chosen(op.type, *(_types(op, name) for name in names))


@functools.cache
def _kernels(op_type):
  """(names of the attributes that tell its kernels apart, its kernels)."""
  found = kernels.get_registered_kernels_for_op(op_type).kernel
  found = [each for each in found if each.device_type in ("GPU", "DEFAULT")]
  found.sort(key=lambda each: each.device_type == "DEFAULT")
  return sorted({c.name for each in found for c in each.constraint}), found


def _types(op, name):
  """What an attribute says, one type or several: set of numbers."""
  try:
    return frozenset([int(op._get_attr_type(name))])
  except ValueError:  # A list of types.
    return frozenset(each.as_datatype_enum for each in op.get_attr(name))


@functools.cache
def _chosen(op_type, *types):
  """The first kernel that allows the types of its attributes, or None."""
  names, found = _kernels(op_type)
  types = dict(zip(names, types, strict=True))
  for each in found:
    if all(
      types[constraint.name] <= {*constraint.allowed_values.list.type}
      for constraint in each.constraint
    ):
      return each
  return None


def copies_to_host(fetches):
  """Tensors that a run of fetches copies from a GPU to the host.

  Args:
    fetches: list of operations and tensors, in a graph for GPUs.

  Returns:
    set of (name of a tensor, name of the operation it goes to, or "fetch").
  """
  found, waiting, seen = set(), [], set()
  for fetch in fetches:
    if isinstance(fetch, tf.Tensor) and not _lies_on_host(fetch):
      found.add((fetch.name, "fetch"))
    waiting.append(fetch.op if isinstance(fetch, tf.Tensor) else fetch)
  while waiting:
    op = waiting.pop()
    if op in seen:
      continue
    seen.add(op)
    waiting += [*op.control_inputs, *(tensor.op for tensor in op.inputs)]
    wanted = _in_host_memory(op, op.op_def.input_arg, op.inputs)
    for tensor, is_wanted in zip(op.inputs, wanted):
      if is_wanted and not _lies_on_host(tensor):
        found.add((tensor.name, op.name))
  return found


def _lies_on_host(tensor):
  return _places(tensor.op)[tensor.value_index]


@functools.cache
def _places(op):
  return _in_host_memory(op, op.op_def.output_arg, op.outputs)


def _in_host_memory(op, args, tensors):
  """Whether each of an operation's inputs, or outputs, lies on the host."""
  found = kernel(op)
  if is_on_host(op) or found is None:
    return [True] * len(tensors)
  names = []
  for arg in args:
    number = 1
    if arg.number_attr:
      number = op.get_attr(arg.number_attr)
    elif arg.type_list_attr:
      number = len(op.get_attr(arg.type_list_attr))
    names += [arg.name] * number
  is_call = op.type in _CALLS
  return [
    name in found.host_memory_arg
    or tensor.dtype in _ALWAYS_ON_HOST
    or (is_call and tensor.dtype == tf.int32)
    for name, tensor in zip(names, tensors, strict=True)
  ]
