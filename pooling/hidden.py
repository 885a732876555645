"""The layer between a video's descriptor and its classifier.

Axes: B videos, D dimensions of the descriptor, H units.
"""

import dataclasses

import tensorflow.compat.v1 as tf

from pooling import linear as linear_lib

# Of the biases at the start, in WILLOW's code.
_BIASES_STDDEV = 0.01


@dataclasses.dataclass(frozen=True)
class Config:
  """What the layer is.

  Attributes:
    size: int, H >= 1.
    relu: bool, ReLU6 on its units.
    add_batch_norm: bool, batch norm where the mode has it, else a bias.
  """

  size: int
  relu: bool
  add_batch_norm: bool


def hidden(descriptor, *, config, mode, weights_stddev=None, scope="hidden1"):
  """W x, batch-normalised or with a bias, then ReLU6 if asked for.

  Args:
    descriptor: float32 [B, D], D static.
    config: `Config`.
    mode: `Mode`.
    weights_stddev: float, of the weights at the start of a layer without batch
      norm; None for that of `linear`.
    scope: variable scope, see `linear`.

  Returns:
    float32 [B, H].

  Raises:
    ValueError: see `linear`.
  """
  add_batch_norm = mode.add_batch_norm and config.add_batch_norm
  outputs = linear_lib.linear(
    descriptor,
    config.size,
    mode=mode.with_batch_norm(add_batch_norm),
    weights_stddev=None if add_batch_norm else weights_stddev,
    biases_stddev=_BIASES_STDDEV,
    scope=scope,
  )
  return tf.nn.relu6(outputs) if config.relu else outputs
