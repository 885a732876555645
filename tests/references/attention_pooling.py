"""Learnt queries that look at a video's frames, as loops over one video.

Axes: T tokens, S queries, D features, E = H h dimensions of H heads.
"""

import math

from tests.references import layers, transformer


def _linear(rows, variables, scope):
  return layers.linear(rows, variables, scope, False)


def _norm(rows, variables, scope):
  return [transformer.layer_norm(row, variables, scope) for row in rows]


def _sum(rows, others):
  return [[x + y for x, y in zip(*pair)] for pair in zip(rows, others)]


def attend(queries, tokens, variables, scope, head_size, root):
  """(queries projected [S, E], what they found [S, E]); root divides logits."""
  projected = _linear(queries, variables, f"{scope}/queries")
  both = _linear(tokens, variables, f"{scope}/keys_values")
  size = len(projected[0])
  found = [[] for _ in projected]
  for start in range(0, size, head_size):
    end = start + head_size
    heads = transformer.attend(
      [[x / root for x in row[start:end]] for row in projected],
      [row[start:end] for row in both],
      [row[size + start : size + end] for row in both],
      [True] * len(both),
    )
    for row, head in zip(found, heads):
      row += head
  return projected, found


def multi_head(queries, tokens, variables, scope, head_size):
  _, found = attend(
    queries, tokens, variables, scope, head_size, math.sqrt(head_size)
  )
  return _linear(found, variables, f"{scope}/output")


def block(queries, tokens, variables, scope, head_size, root, normed):
  """MAB(Q, X), of Q projected."""
  outputs = _sum(*attend(queries, tokens, variables, scope, head_size, root))
  if normed:
    outputs = _norm(outputs, variables, f"{scope}/attention_norm")
  fed = _linear(outputs, variables, f"{scope}/output")
  outputs = _sum(outputs, [[max(x, 0.0) for x in row] for row in fed])
  if normed:
    outputs = _norm(outputs, variables, f"{scope}/output_norm")
  return outputs


def induced(tokens, variables, scope, *args):
  points = variables[f"{scope}/inducing"]
  points = block(points, tokens, variables, f"{scope}/to_points", *args)
  return block(tokens, points, variables, f"{scope}/back", *args)


def pma(tokens, variables, *args):
  return block(variables["pma/seeds"], tokens, variables, "pma/block", *args)


def probe(tokens, variables, head_size):
  seen = _norm(tokens, variables, "probe/tokens_norm")
  queries = variables["probe/queries"]
  outputs = _sum(
    queries, multi_head(queries, seen, variables, "probe/attention", head_size)
  )
  hidden = _norm(outputs, variables, "probe/output_norm")
  hidden = [
    [0.5 * x * math.erfc(-x / math.sqrt(2.0)) for x in row]
    for row in _linear(hidden, variables, "probe/inner")
  ]
  outputs = _sum(outputs, _linear(hidden, variables, "probe/outer"))
  if "probe/final_norm/gamma" in variables:
    outputs = _norm(outputs, variables, "probe/final_norm")
  return outputs


def bag_of_queries(tokens, variables, head_size):
  queries = variables["queries/queries"]
  seen = multi_head(
    queries, queries, variables, "queries/self_attention", head_size
  )
  queries = _norm(_sum(queries, seen), variables, "queries/queries_norm")
  found = multi_head(queries, tokens, variables, "queries/attention", head_size)
  return _norm(found, variables, "queries/output_norm")


def mixed(rows, variables):
  """Dimension by dimension, a linear map of the queries; of unit length."""
  numbers = []
  for column in zip(*rows):
    numbers += _linear([column], variables, "rows")[0]
  return layers.unit(numbers)
