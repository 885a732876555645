"""What a graph holds: the tensors of all operations, in functions too."""


def tensors(graph):
  """Yields every tensor of a graph and of the functions that it calls."""
  # tf.while_loop and tf.cond keep their bodies in the function library.
  for function in graph._functions.values():
    yield from tensors(function.graph)
  for operation in graph.get_operations():
    yield from operation.outputs


def sizes(graph):
  """({tensor: its number of elements}, tensors of unknown static shape)."""
  known, unknown = {}, []
  for tensor in tensors(graph):
    if tensor.shape.is_fully_defined():
      known[tensor.name] = tensor.shape.num_elements()
    else:
      unknown.append(tensor)
  return known, unknown
