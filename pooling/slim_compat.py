"""The one place where tf-slim is imported: `from slim_compat import slim`.

tf-slim 1.1.0 names `tensorflow.python.framework.ops.Tensor` in `batch_norm`
and in `learning`. TensorFlow dropped that name in 2.15, where the class lives
on as `tf.Tensor`; putting it back is all that tf-slim needs.
"""

import warnings

import tensorflow.compat.v1 as tf
from tensorflow.python.framework import ops

if not hasattr(ops, "Tensor"):
  ops.Tensor = tf.Tensor

# Said by tf-slim's own code, about which its users can do nothing.
warnings.filterwarnings("ignore", message=".*layer.apply.*deprecated")

import tf_slim as slim

__all__ = ["slim"]
