"""What layers choose by the device that computes them."""

import tensorflow.compat.v1 as tf


def has_gpu():
  """Whether TensorFlow finds a GPU."""
  return bool(tf.config.list_physical_devices("GPU"))


def need_float32():
  """Has this process's GPUs multiply float32 as it is, not rounded to TF32.

  TF32 keeps 10 bits of a mantissa: of a difference of large numbers nothing may
  be left. TensorFlow knows no other scope for it than the process.
  """
  tf.config.experimental.enable_tensor_float_32_execution(False)
