"""What a graph holds: the tensors of all operations, in functions too."""


def tensors(graph):
  """Yields every tensor of a graph and of the functions that it calls."""
  # tf.while_loop and tf.cond keep their bodies in the function library.
  bodies = [function.graph for function in graph._functions.values()]
  for each in (graph, *bodies):
    for operation in each.get_operations():
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
