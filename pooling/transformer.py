"""The Transformer encoder, as the paper modifies it (sections 3.1 and 3.2).

Vaswani et al. 2017 (arXiv:1706.03762): multi-head attention, residual, layer
normalisation, feed-forward, residual, layer normalisation; without positions,
as frames are sampled uniformly. The paper adds batch normalisation inside the
attention block.

What an untrained encoder adds to its tokens is noise, and the models here put
it between the frames and the pooling that works without it. So by default an
encoder starts as the identity, see `RESIDUALS`.

Axes: B videos, T tokens (frames or centres), D features, H heads of h
dimensions, N tokens of all videos.
"""

import dataclasses
import functools

import tensorflow.compat.v1 as tf

from pooling import device, moving_average, observe
from pooling import linear as linear_lib
from pooling.dropout import dropout
from pooling.frames import known_sizes, zero_padding

BATCH_NORMS = ("projections", "logits", "none")
# How a part (attention, feed-forward) is added to its input x:
# - "zero_init": x + gain part(norm(x)), with a gain that starts at 0 (Goyal et
#   al. 2017, arXiv:1706.02677, section 5.1; Bachlechner et al. 2020,
#   arXiv:2003.04887), normalised before rather than after (Xiong et al. 2020,
#   arXiv:2002.04745). One gain for all features: with one for each, which Adam
#   moves as fast, a few hundred videos were learnt by their noise.
# - "post_norm": norm(x + part(x)), as Vaswani et al. have it.
RESIDUALS = ("zero_init", "post_norm")

_LAYER_NORM_EPSILON = 1e-6
_BATCH_NORM_EPSILON = 1e-3
# As a logit: no weight, and no inf - inf where every key is padding.
_MASKED = -1e30
# Of T x T numbers for each head, that exist at a time for a gradient.
_COPIES = 4
# What blocks of videos may take, measured on two cores; a GPU is to have few
# and large operations.
_CPU_MEMORY, _GPU_MEMORY = 64 * 2**20, 2**30


@dataclasses.dataclass(frozen=True)
class Config:
  """An encoder's hyper-parameters.

  Attributes:
    head_size: int >= 1, h; there are max(1, D // h) heads.
    feed_forward_factor: int >= 1, inner units of the feed-forward part over D.
    dropout: float in [0, 1), of what each part adds to its residual.
    attention_dropout: float in [0, 1), of the attention weights.
    batch_norm: "projections" (of queries, keys, values and output), "logits"
      (of the attention's logits, a mean and a variance for each head), or
      "none".
    residual: one of `RESIDUALS`.
    memory_mb: int >= 0, MB for attention, see `attention`; 0 for the device's.

  Raises:
    ValueError: a value out of its range.
  """

  head_size: int
  feed_forward_factor: int
  dropout: float
  attention_dropout: float
  batch_norm: str
  residual: str
  memory_mb: int = 0

  def __post_init__(self):
    if self.head_size < 1 or self.feed_forward_factor < 1:
      raise ValueError(
        "Need head_size and feed_forward_factor >= 1, got "
        f"{self.head_size} and {self.feed_forward_factor}."
      )
    for rate in (self.dropout, self.attention_dropout):
      if not 0.0 <= rate < 1.0:
        raise ValueError(f"Need dropout rates in [0, 1), got {rate}.")
    if self.batch_norm not in BATCH_NORMS:
      raise ValueError(
        f"batch_norm is one of {BATCH_NORMS}, got {self.batch_norm!r}."
      )
    if self.residual not in RESIDUALS:
      raise ValueError(
        f"residual is one of {RESIDUALS}, got {self.residual!r}."
      )


def encoder(inputs, mask, *, config, mode, output_size=None, scope="encoder"):
  """Maps tokens to tokens that have seen each other.

  Args:
    inputs: float32 [B, T, D], D static; padding may hold any finite value.
    mask: bool [B, T], True on real tokens.
    config: `Config`.
    mode: `Mode`; its add_batch_norm does not count, the configuration's does.
    output_size: int or None; if given, the feed-forward part ends in so many
      units, and its residual is left out (figure 2, "Transformer Encoder *"):
      with zero_init these are the outputs, with post_norm they are normalised,
      which leaves a sign of two, and nothing of one.
    scope: variable scope.

  Returns:
    float32 [B, T, output_size or D]; zeros on padding.

  Raises:
    ValueError: inputs not of rank 3, D unknown, or output_size < 1.
  """
  depth = inputs.shape.with_rank(3).as_list()[2]
  if depth is None:
    raise ValueError(f"Need static D, got inputs of shape {inputs.shape}.")
  part = {"config": config, "mode": mode}

  def attend(tokens):
    return multi_head_attention(zero_padding(tokens, mask), mask, **part)

  def feed_forward(tokens):
    units = depth if output_size is None else output_size
    return _feed_forward(tokens, mask, units, **part)

  with tf.variable_scope(scope, values=[inputs, mask]):
    tokens = zero_padding(inputs, mask)
    tokens = _add(tokens, attend, scope="attention", **part)
    if output_size is None:
      outputs = _add(tokens, feed_forward, scope="output", **part)
    elif config.residual == "zero_init":
      outputs = feed_forward(layer_norm(tokens, scope="output_norm"))
    else:
      outputs = dropout(
        feed_forward(tokens), config.dropout, is_training=mode.is_training
      )
      outputs = layer_norm(outputs, scope="output_norm")
    return zero_padding(outputs, mask)


def _feed_forward(tokens, mask, units, *, config, mode):
  """Two linear layers with a ReLU between: float32 [B, T, units]."""
  mode = mode.with_batch_norm(False)
  inner = config.feed_forward_factor * tokens.shape.as_list()[2]
  hidden = linear_lib.linear_frames(
    tokens, mask, inner, mode=mode, scope="inner"
  )
  return linear_lib.linear_frames(
    tf.nn.relu(hidden), mask, units, mode=mode, scope="outer"
  )


def _add(inputs, part, *, config, mode, scope):
  """Adds a part to its inputs, as `RESIDUALS` says.

  Args:
    inputs: float32 [B, T, D].
    part: function of such a tensor to another.
    config: `Config`.
    mode: `Mode`.
    scope: str; the variables are `SCOPE_norm` and `SCOPE_gain`.

  Returns:
    float32 [B, T, D].
  """
  norm = functools.partial(layer_norm, scope=f"{scope}_norm")
  is_plain = config.residual == "post_norm"
  added = part(inputs if is_plain else norm(inputs))
  added = dropout(added, config.dropout, is_training=mode.is_training)
  if is_plain:
    return norm(inputs + added)
  gain = tf.get_variable(
    f"{scope}_gain", [], initializer=tf.zeros_initializer()
  )
  return inputs + gain * added


def multi_head_attention(inputs, mask, *, config, mode, scope="attention"):
  """Attention of every token to every real token of its video, by H heads.

  Args:
    inputs: float32 [B, T, D], D static, zero on padding.
    mask: bool [B, T], True on real tokens.
    config: `Config`.
    mode: `Mode`, see `encoder`.
    scope: variable scope; holds `query_key_value` and `output`, and with
      batch norm of the logits `logits`.

  Returns:
    float32 [B, T, D]; padding holds finite values without meaning.
  """
  depth, size = inputs.shape.as_list()[2], config.head_size
  num_heads = max(1, depth // size)
  projection = mode.with_batch_norm(config.batch_norm == "projections")
  with tf.variable_scope(scope, values=[inputs, mask]):
    # One product for all three; batch norm is feature by feature anyhow.
    projected = linear_lib.linear_frames(
      inputs,
      mask,
      3 * num_heads * size,
      mode=projection,
      scope="query_key_value",
    )
    shape = tf.shape(inputs)
    heads = tf.reshape(projected, [shape[0], shape[1], 3, num_heads, size])
    queries, keys, values = tf.unstack(
      tf.transpose(heads, [2, 0, 3, 1, 4]), num=3
    )  # [B, H, T, h] each
    if config.batch_norm == "logits":
      scale = _logits_scale(queries, keys, mask, mode=mode)
    else:
      scale = size**-0.5
    attended = attention(
      queries * scale,
      keys,
      values,
      mask,
      dropout_rate=config.attention_dropout if mode.is_training else 0.0,
      memory=config.memory_mb * 2**20,
    )
    attended = tf.reshape(
      tf.transpose(attended, [0, 2, 1, 3]),
      [shape[0], shape[1], num_heads * size],
    )
    return linear_lib.linear_frames(
      attended, mask, depth, mode=projection, scope="output"
    )


def attention(queries, keys, values, mask, *, dropout_rate=0.0, memory=0):
  """softmax(Q K^T) V over real keys: equation (2), scaled queries given.

  The T x T weights of a block of videos exist at a time, forward and backward:
  they are computed again for the gradient, not kept. A training step of
  AttentionEnhancedNetVLADModel (16 videos of 256 frames) takes 3.1 GB on a CPU
  instead of 3.8, and the same time.

  Args:
    queries: float [B, H, S, h], H and h static, already divided by alpha; S is
      T where tokens look at each other.
    keys: float [B, H, T, h].
    values: float [B, H, T, h].
    mask: bool [B, T], True on real tokens; on padding logits far below 1e30.
    dropout_rate: float in [0, 1), of the weights.
    memory: int >= 0, bytes for a block's tensors of T x T numbers, of which a
      gradient needs some at a time; 0 for a size that the device is fast with.
      A block has one video at least. Which weights are dropped depends on it,
      and nothing else.

  Returns:
    float [B, H, S, h]; the plain mean of the values for an empty video.
  """
  observe.note("attention", queries, keys, mask)
  bias = tf.where_v2(mask, 0.0, _MASKED)
  bias = tf.cast(bias, queries.dtype)[:, tf.newaxis, tf.newaxis, :]
  num_blocks, videos = _blocks(queries, keys, memory)
  # The backward pass is to drop the same weights: each block has its seed.
  seeds = tf.zeros([num_blocks, 2], tf.int32)
  if dropout_rate:
    seeds = tf.random.uniform(tf.shape(seeds), maxval=2**31 - 1, dtype=tf.int32)

  def of_block(args):
    *inputs, bias, seed = args

    @tf.recompute_grad
    def attended(query, key, value):  # [videos, H, T, h] each
      weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) + bias)
      if dropout_rate:
        weights = tf.nn.experimental.stateless_dropout(
          weights, dropout_rate, seed
        )
      return tf.matmul(weights, value)

    return attended(*inputs)

  inputs = (queries, keys, values, bias)
  outputs = tf.map_fn(
    of_block,
    (*(_in_blocks(each, num_blocks, videos) for each in inputs), seeds),
    fn_output_signature=queries.dtype,
    parallel_iterations=1,
  )
  batch, *shape = known_sizes(queries)
  return tf.reshape(outputs, [num_blocks * videos, *shape])[:batch]


def _blocks(queries, keys, memory):
  """Number of blocks and of videos in each, as even as they get.

  Numbers where the sizes of queries and keys are known, else tensors.
  """
  if not memory:
    memory = _GPU_MEMORY if device.has_gpu() else _CPU_MEMORY
  batch, heads, length, _ = known_sizes(queries)
  most = memory // (_COPIES * queries.dtype.size * heads)
  # An int32 may hold neither that nor the product of the lengths.
  most = min(most, 2**31 - 1)
  num_keys = known_sizes(keys)[2]
  most = _at_least_1(most // _at_least_1(length) // _at_least_1(num_keys))
  num_blocks = _at_least_1(-(-batch // most))
  return num_blocks, -(-batch // num_blocks)


def _in_blocks(tensor, num_blocks, videos):
  """[B, ...] to [num_blocks, videos, ...]; zeros fill up the last block."""
  batch, *shape = known_sizes(tensor)
  rest = num_blocks * videos - batch
  tensor = tf.pad(tensor, [[0, rest], *[[0, 0]] * len(shape)])
  return tf.reshape(tensor, [num_blocks, videos, *shape])


def _at_least_1(size):
  return max(1, size) if isinstance(size, int) else tf.maximum(1, size)


def layer_norm(inputs, *, scope="layer_norm"):
  """Normalises each row to mean 0 and variance 1 (Ba et al. 2016).

  Args:
    inputs: float [..., D], D static.
    scope: variable scope; holds `beta` and `gamma`.

  Returns:
    float [..., D]; beta where all of a row is equal.
  """
  depth = inputs.shape.as_list()[-1]
  with tf.variable_scope(scope, values=[inputs]):
    beta = tf.get_variable("beta", [depth], initializer=tf.zeros_initializer())
    gamma = tf.get_variable("gamma", [depth], initializer=tf.ones_initializer())
    mean = tf.reduce_mean(inputs, axis=-1, keepdims=True)
    centred = inputs - mean
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    scaled = centred * tf.math.rsqrt(variance + _LAYER_NORM_EPSILON)
    return scaled * gamma + beta


def _logits_scale(queries, keys, mask, *, mode):
  """What batch normalisation of the logits q.k multiplies queries by.

  gamma (l - mean) / sqrt(variance + epsilon): softmax does not see what is
  added to all logits of a head, which leaves the factor. Its variance, over all
  pairs of real tokens of a video, needs no T x T logits:

    sum_ts q_t.k_s     = (sum_t q_t).(sum_s k_s)
    sum_ts (q_t.k_s)^2 = sum_ij (Q^T Q)_ij (K^T K)_ij.

  Departure from the authors' code, which takes statistics for each key's place
  in the video: one variance for each head.

  Returns:
    float [H, 1, 1].
  """
  num_heads = queries.shape.as_list()[1]
  with tf.variable_scope("logits"):
    gamma = tf.get_variable(
      "gamma", [num_heads], initializer=tf.ones_initializer()
    )
    averages = moving_average.create(
      {"moving_variance": ([num_heads], tf.ones_initializer())}
    )
    variance = averages["moving_variance"]
    if mode.is_training:
      real = mask[:, tf.newaxis, :, tf.newaxis]
      queries = tf.where_v2(real, queries, 0.0)
      keys = tf.where_v2(real, keys, 0.0)
      lengths = tf.reduce_sum(tf.cast(mask, queries.dtype), axis=1)
      pairs = tf.reduce_sum(tf.square(lengths))
      share = 1.0 / tf.maximum(pairs, 1.0)
      mean = share * tf.einsum(
        "bhd,bhd->h",
        tf.reduce_sum(queries, axis=2),
        tf.reduce_sum(keys, axis=2),
      )
      squares = share * tf.einsum(
        "bhde,bhde->h",
        tf.matmul(queries, queries, transpose_a=True),
        tf.matmul(keys, keys, transpose_a=True),
      )
      variance = tf.nn.relu(squares - tf.square(mean))
      moving_average.update(
        averages,
        {"moving_variance": variance},
        rows=pairs,
        decay=mode.batch_norm_decay,
      )
    factor = gamma * tf.math.rsqrt(variance + _BATCH_NORM_EPSILON)
    return factor[:, tf.newaxis, tf.newaxis]
