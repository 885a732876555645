"""Attention pooling: learnt queries look at a video's frames.

The ways in which frozen features are classified today: pooling by multi-head
attention (Lee et al. 2019), the attentive probe (Bardes et al. 2024), bags of
queries (Ali-bey et al. 2024). Each is made of attention from some tokens to
others; tokens are frames, learnt queries, or what became of either. Where a
video is empty none of its tokens is real, its queries neither.

Axes: B videos, T tokens, S queries, D features, E the size of what is attended,
H heads of h dimensions.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from pooling import linear as linear_lib
from pooling import transformer
from pooling.frames import zero_padding
from pooling.transformer import layer_norm

# What queries times keys are divided by: the root of the size of a head
# (Vaswani et al. 2017), or of all heads together (Lee et al. 2019).
SCALES = ("head", "width")

# V-JEPA's, of its query at the start.
_QUERY_STDDEV = 0.02


class Tokens(NamedTuple):
  """Tokens of each video.

  Attributes:
    values: float32 [B, T, D], D static; padding may hold any finite value.
    mask: bool [B, T], True on real tokens.
  """

  values: Any
  mask: Any


@dataclasses.dataclass(frozen=True)
class Config:
  """What the layers of one model share.

  Attributes:
    size: int, E, a multiple of head_size.
    head_size: int >= 1, h.
    scale: one of `SCALES`.
    layer_norm: bool, of both sums of `attention_block`, of the last one of
      `attentive_probe`.
    feed_forward_factor: int >= 1, inner units of the feed-forward part of a
      probe, over E.
    memory_mb: int >= 0, MB for attention, see `transformer.attention`.

  Raises:
    ValueError: a value out of its range.
  """

  size: int
  head_size: int
  scale: str = "head"
  layer_norm: bool = True
  feed_forward_factor: int = 4
  memory_mb: int = 0

  def __post_init__(self):
    if self.head_size < 1 or self.size < 1 or self.size % self.head_size:
      raise ValueError(
        "Need a size that is a multiple of the head size, got "
        f"{self.size} and {self.head_size}."
      )
    if self.scale not in SCALES:
      raise ValueError(f"scale is one of {SCALES}, got {self.scale!r}.")


def attention_block(queries, tokens, *, config, mode, scope="block"):
  """MAB(Q, X) of the Set Transformer (Lee et al. 2019, arXiv:1810.00825).

    O = Q W_q + Attention(Q W_q, X W_k, X W_v)
    MAB = O + relu(O W_o + b)

  Both sums are normalised if the configuration says so (equations 6 and 7; the
  authors' code does not by default).

  Args:
    queries: `Tokens` of [B, S, any].
    tokens: `Tokens` of [B, T, D].
    config: `Config`.
    mode: `Mode`; there is no batch norm.
    scope: variable scope.

  Returns:
    `Tokens` of [B, S, E], those of the queries; zeros on their padding.
  """
  with tf.variable_scope(scope, values=[queries.values, tokens.values]):
    projected, attended = _attend(queries, tokens, config=config, mode=mode)
    outputs = projected + attended
    if config.layer_norm:
      outputs = layer_norm(outputs, scope="attention_norm")
    outputs += tf.nn.relu(
      _linear(Tokens(outputs, queries.mask), config.size, mode, "output")
    )
    if config.layer_norm:
      outputs = layer_norm(outputs, scope="output_norm")
  return Tokens(zero_padding(outputs, queries.mask), queries.mask)


def induced_block(tokens, num_inducing, *, config, mode, scope="induced"):
  """ISAB(X) = MAB(X, MAB(I, X)): tokens see each other through I.

  Lee et al. 2019, equations (9) and (10): time and memory in T, not T^2.

  Args:
    tokens: `Tokens` of [B, T, D].
    num_inducing: int >= 1, inducing points I.
    config: `Config`.
    mode: `Mode`.
    scope: variable scope.

  Returns:
    `Tokens` of [B, T, E]; zeros on padding.
  """
  block = functools.partial(attention_block, config=config, mode=mode)
  with tf.variable_scope(scope, values=[tokens.values]):
    points = seeds(num_inducing, config.size, tokens.mask, scope="inducing")
    return block(tokens, block(points, tokens, scope="to_points"), scope="back")


def pooled_by_attention(tokens, num_seeds, *, config, mode, scope="pma"):
  """PMA(X) = MAB(S, X): s learnt seeds look at the tokens.

  Lee et al. 2019, equation (11), as their code has it: without a feed-forward
  part on X.

  Args:
    tokens: `Tokens` of [B, T, D].
    num_seeds: int >= 1, s.
    config: `Config`.
    mode: `Mode`.
    scope: variable scope.

  Returns:
    `Tokens` of [B, s, E]; zeros for an empty video.
  """
  with tf.variable_scope(scope, values=[tokens.values]):
    queries = seeds(num_seeds, config.size, tokens.mask)
    return attention_block(queries, tokens, config=config, mode=mode)


def attentive_probe(tokens, num_queries, *, config, mode, scope="probe"):
  """One block of cross-attention from learnt queries q to the tokens.

    q' = q + Attention(q W_q, n(X) W_k, n(X) W_v) W_o
    probe = q' + feed-forward(n(q'))

  with layer norms n, as V-JEPA's (Bardes et al. 2024, arXiv:2404.08471), and
  another one of the result if the configuration says so: the classifier then
  does not see how large a sum of residuals became.

  Args:
    tokens: `Tokens` of [B, T, E].
    num_queries: int >= 1, S.
    config: `Config`.
    mode: `Mode`.
    scope: variable scope.

  Returns:
    `Tokens` of [B, S, E]; zeros for an empty video.
  """
  with tf.variable_scope(scope, values=[tokens.values]):
    queries = seeds(
      num_queries,
      config.size,
      tokens.mask,
      initializer=tf.truncated_normal_initializer(stddev=_QUERY_STDDEV),
      scope="queries",
    )
    normed = layer_norm(zero_padding(*tokens), scope="tokens_norm")
    outputs = queries.values + _multi_head(
      queries, Tokens(normed, tokens.mask), config=config, mode=mode
    )
    inner = config.feed_forward_factor * config.size
    hidden = _linear(
      Tokens(layer_norm(outputs, scope="output_norm"), queries.mask),
      inner,
      mode,
      "inner",
    )
    hidden = Tokens(_gelu(hidden), queries.mask)
    outputs += _linear(hidden, config.size, mode, "outer")
    if config.layer_norm:
      outputs = layer_norm(outputs, scope="final_norm")
  return Tokens(zero_padding(outputs, queries.mask), queries.mask)


def bag_of_queries(tokens, num_queries, *, config, mode, scope="queries"):
  """Learnt queries that look at each other, then at the tokens.

    Q = n(Q_0 + Attention(Q_0, Q_0, Q_0)),   O = n(Attention(Q, X, X))

  with layer norms n (Ali-bey et al. 2024, arXiv:2405.07364). Q is the same for
  every video.

  Args:
    tokens: `Tokens` of [B, T, E].
    num_queries: int >= 1, S.
    config: `Config`.
    mode: `Mode`.
    scope: variable scope.

  Returns:
    `Tokens` of [B, S, E]; zeros for an empty video.
  """
  attend = functools.partial(_multi_head, config=config, mode=mode)
  with tf.variable_scope(scope, values=[tokens.values]):
    learnt = seeds(
      num_queries,
      config.size,
      tf.ones([1, 1], tf.bool),
      initializer=tf.random_normal_initializer(),
      scope="queries",
    )
    queries = learnt.values + attend(learnt, learnt, scope="self_attention")
    queries = _for_each_video(
      layer_norm(queries, scope="queries_norm"), tokens.mask
    )
    outputs = layer_norm(
      attend(queries, tokens, scope="attention"), scope="output_norm"
    )
  return Tokens(zero_padding(outputs, queries.mask), queries.mask)


def mixed_queries(outputs, units, *, mode, scope="rows"):
  """What bags of queries become: a linear map of S, then unit length.

  Args:
    outputs: `Tokens` of [B, S, E], S static.
    units: int >= 1, U.
    mode: `Mode`.
    scope: variable scope.

  Returns:
    float32 [B, E * U]; zeros for an empty video.
  """
  _, num_queries, size = outputs.values.shape.as_list()
  columns = tf.reshape(
    tf.transpose(outputs.values, [0, 2, 1]), [-1, num_queries]
  )  # [B * E, S]
  mixed = linear_lib.linear(
    columns, units, mode=mode.with_batch_norm(False), scope=scope
  )
  rows = tf.nn.l2_normalize(tf.reshape(mixed, [-1, size * units]), axis=1)
  return tf.where_v2(outputs.mask[:, :1], rows, 0.0)


def flat(tokens):
  """All tokens of a video one after the other: float32 [B, S * E]."""
  _, number, size = tokens.values.shape.as_list()
  return tf.reshape(tokens.values, [-1, number * size])


def seeds(number, size, mask, *, initializer=None, scope="seeds"):
  """Learnt tokens, the same for every video.

  Args:
    number: int >= 1, S.
    size: int, E.
    mask: bool [B, T], of the tokens that they look at.
    initializer: of the variable; by default Xavier's (Glorot & Bengio 2010).
    scope: str, the variable.

  Returns:
    `Tokens` of [B, S, E]; zeros, and none is real, where no token is.

  Raises:
    ValueError: number < 1.
  """
  if number < 1:
    raise ValueError(f"Need at least one learnt query, got {number}.")
  values = tf.get_variable(
    scope,
    [number, size],
    initializer=initializer or tf.glorot_uniform_initializer(),
  )
  return _for_each_video(values[tf.newaxis], mask)


def project(tokens, size, *, mode, scope="project"):
  """A linear map of each token: `Tokens` of [B, T, size], zeros on padding."""
  values = _linear(
    Tokens(zero_padding(*tokens), tokens.mask), size, mode, scope
  )
  return Tokens(zero_padding(values, tokens.mask), tokens.mask)


def _for_each_video(values, mask):
  """`Tokens` of values [1, S, E]; mask is bool [B, T]."""
  some = tf.reduce_any(mask, axis=1, keepdims=True)
  real = tf.tile(some, [1, values.shape.as_list()[1]])
  return Tokens(tf.where_v2(real[:, :, tf.newaxis], values, 0.0), real)


def _linear(tokens, units, mode, scope):
  """W x + b of each token: float32 [B, T, units]."""
  return linear_lib.linear_frames(
    tokens.values,
    tokens.mask,
    units,
    mode=mode.with_batch_norm(False),
    scope=scope,
  )


def _gelu(x):
  """x times the probability that a standard normal number is less."""
  return 0.5 * x * (1.0 + tf.math.erf(x * 0.5**0.5))


def _multi_head(queries, tokens, *, config, mode, scope="attention"):
  """Attention, and a linear map of what the heads found: [B, S, E]."""
  with tf.variable_scope(scope):
    _, attended = _attend(queries, tokens, config=config, mode=mode)
    return _linear(Tokens(attended, queries.mask), config.size, mode, "output")


def _attend(queries, tokens, *, config, mode):
  """Attention of H heads, side by side.

  Args:
    queries: `Tokens` of [B, S, any].
    tokens: `Tokens` of [B, T, D].
    config: `Config`.
    mode: `Mode`.

  Returns:
    (float32 [B, S, E] projected queries, float32 [B, S, E] what they found);
    both without meaning on padding.
  """
  size, head_size = config.size, config.head_size
  tokens = Tokens(zero_padding(*tokens), tokens.mask)
  queries = Tokens(zero_padding(*queries), queries.mask)
  projected = _linear(queries, size, mode, "queries")
  keys, values = tf.split(
    _linear(tokens, 2 * size, mode, "keys_values"), 2, axis=2
  )

  def heads(rows):  # [B, H, T, h]
    shape = tf.shape(rows)
    split = [shape[0], shape[1], size // head_size, head_size]
    return tf.transpose(tf.reshape(rows, split), [0, 2, 1, 3])

  scale = head_size if config.scale == "head" else size
  attended = transformer.attention(
    heads(projected) * scale**-0.5,
    heads(keys),
    heads(values),
    tokens.mask,
    memory=config.memory_mb * 2**20,
  )
  attended = tf.reshape(
    tf.transpose(attended, [0, 2, 1, 3]), tf.shape(projected)
  )
  attended.set_shape(projected.shape)
  return projected, attended
