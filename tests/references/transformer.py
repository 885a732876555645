"""The encoder. Axes: B videos, T tokens, D features, H heads of h."""

import math

from tests.references import layers

HEAD_SIZE = 3  # h, where nothing else is said.


def attend(queries, keys, values, real, factors=None):
  """One head [T, h] of one video; every query, also of padding.

  Args:
    queries: numbers [T, h].
    keys: numbers [T, h].
    values: numbers [T, h].
    real: bool [T]; where none is, all keys count alike.
    factors: what dropout multiplies the weights [T, T] by.
  """
  places = [s for s, yes in enumerate(real) if yes]
  outputs = []
  for t, query in enumerate(queries):
    if places:
      weights = layers.softmax([layers.dot(query, keys[s]) for s in places])
      pairs = list(zip(places, weights))
    else:
      pairs = [(s, 1 / len(keys)) for s in range(len(keys))]
    output = [0.0] * len(values[0])
    for s, weight in pairs:
      if factors is not None:
        weight *= float(factors[t][s])
      for i, value in enumerate(values[s]):
        output[i] += weight * float(value)
    outputs.append(output)
  return outputs


def multi_head(
  videos, variables, scope, batch_norm, is_training, size=HEAD_SIZE
):
  """Videos of attended tokens, head after head."""
  if not any(len(video) for video in videos):
    return [[] for _ in videos]
  depth = variables[f"{scope}/output/weights"].shape[1]
  num_heads = max(1, depth // size)
  projected = layers.per_frame(
    layers.linear,
    videos,
    variables,
    f"{scope}/query_key_value",
    is_training,
  )
  attended = [[[] for _ in video] for video in videos]
  for head in range(num_heads):
    parts = []  # Of each video, queries, keys and values.
    for video in projected:
      starts = [(part * num_heads + head) * size for part in range(3)]
      parts.append([[x[i : i + size] for x in video] for i in starts])
    shift, scale = 0.0, 1 / math.sqrt(size)
    if batch_norm == "logits":
      logits = [
        layers.dot(query, key)
        for queries, keys, _ in parts
        for query in queries
        for key in keys
      ]
      if is_training:
        shift, variance = layers.mean_and_variance(logits)
      else:
        variance = variables[f"{scope}/logits/moving_variance"][head]
      gamma = variables[f"{scope}/logits/gamma"][head]
      scale = gamma / math.sqrt(variance + 1e-3)
    for b, (queries, keys, values) in enumerate(parts):
      for t, query in enumerate(queries):
        weights = layers.softmax(
          [(layers.dot(query, key) - shift) * scale for key in keys]
        )
        for i in range(size):
          attended[b][t].append(
            sum(w * value[i] for w, value in zip(weights, values))
          )
  return layers.per_frame(
    layers.linear, attended, variables, f"{scope}/output", is_training
  )


def layer_norm(row, variables, scope):
  mean, variance = layers.mean_and_variance([float(x) for x in row])
  return [
    gamma * (float(x) - mean) / math.sqrt(variance + 1e-6) + beta
    for x, gamma, beta in zip(
      row, variables[f"{scope}/gamma"], variables[f"{scope}/beta"]
    )
  ]


def encoder(
  videos,
  variables,
  batch_norm,
  is_training,
  has_residual=True,
  kept=1.0,
  residual="zero_init",
):
  """`kept` stands for dropout: a factor of what a part adds."""

  def norm(row, scope):
    return layer_norm(row, variables, f"encoder/{scope}_norm")

  def added(x, part, scope):
    """What x and a part of it make; not normalised with zero_init."""
    if residual == "post_norm":
      return norm([float(p) + kept * q for p, q in zip(x, part)], scope)
    gain = variables[f"encoder/{scope}_gain"]
    return [float(p) + gain * kept * q for p, q in zip(x, part)]

  def feed_forward(token):
    (inner,) = layers.linear([token], variables, "encoder/inner", is_training)
    inner = [max(u, 0.0) for u in inner]
    (output,) = layers.linear([inner], variables, "encoder/outer", is_training)
    return output

  seen = videos
  if residual == "zero_init":
    seen = [[norm(x, "attention") for x in video] for video in videos]
  attended = multi_head(
    seen, variables, "encoder/attention", batch_norm, is_training
  )
  encoded = []
  for video, parts in zip(videos, attended):
    outputs = []
    for x, part in zip(video, parts):
      token = added(x, part, "attention")
      if residual == "zero_init":
        output = feed_forward(norm(token, "output"))
      else:
        output = feed_forward(token)
      if has_residual:
        output = added(token, output, "output")
      elif residual == "post_norm":
        output = norm([kept * y for y in output], "output")
      outputs.append(output)
    encoded.append(outputs)
  return encoded
