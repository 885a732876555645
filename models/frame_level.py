"""Classifiers of a video's frames.

Axes: B videos, N frames of the whole batch, T frames a video, D features of
all kinds concatenated (rgb, audio, ...), C classes.
"""

import numpy as np
import tensorflow.compat.v1 as tf

from models import base, configs, registry
from pooling import dbof as dbof_lib
from pooling import frame_sampling, linear, scaling
from pooling import frames as frames_lib

# The L2 penalty of the starter code's logistic models.
_LOGISTIC_L2 = 1e-8


class FrameLevelModel(base.BaseModel):
  """What the models of a [B, T, D] input share: all frames of each video."""

  is_frame_level = True

  def select_frames(self, num_frames, is_training):
    """Chooses the frames that the model sees; by default all.

    Args:
      num_frames: int32 [B], stored frames.
      is_training: bool.

    Returns:
      (int32 [B, T] indices, int32 [B] number of real ones among them).
    """
    del is_training
    return frame_sampling.all_indices(num_frames), num_frames

  def choose_input(self, features, num_frames, is_training):
    """Gathers the chosen frames as they are stored.

    Args:
      features: [N, D], N = sum(num_frames): uint8, or floats, which stand for
        themselves.
      num_frames: int32 [B].
      is_training: bool.

    Returns:
      ([B, T, D] of the features' type, int32 [B] real frames).
    """
    # TensorFlow gathers no bytes on a GPU, which is to get those alone that the
    # model sees.
    with tf.device("/cpu:0"):
      indices, num_real = self.select_frames(num_frames, is_training)
      frames = frame_sampling.gather_frames(features, num_frames, indices)
    return frames, num_real

  def scale_input(self, features, num_frames, is_training):
    """Dequantises frames, and brings them to the size that the model sees.

    Args:
      features: [B, T, D], uint8 or floats.
      num_frames: int32 [B].
      is_training: bool.

    Returns:
      (float32 [B, T, D] as of `scale_frames`, num_frames).
    """
    frames = frame_sampling.dequantize(features, *self._largest_and_smallest())
    return self.scale_frames(frames, is_training), num_frames

  def _largest_and_smallest(self):
    """What bytes stand for: float each, or [D] where features differ in it."""
    ranges = {(feature.high, feature.low) for feature in self.features}
    if len(ranges) > 1:
      sizes = [feature.size for feature in self.features]
      highs = [feature.high for feature in self.features]
      lows = [feature.low for feature in self.features]
      return np.repeat(highs, sizes), np.repeat(lows, sizes)
    return ranges.pop() if ranges else (2.0, -2.0)

  def scale_frames(self, frames, is_training):
    """Brings frames to the size that the model sees; by default unit length.

    Args:
      frames: float32 [B, T, D], dequantised.
      is_training: bool.

    Returns:
      float32 [B, T, D].
    """
    del is_training
    return scaling.unit(frames)


class SampledFramesModel(FrameLevelModel):
  """What the models that see --iterations frames of a video share."""

  Config = configs.Sampling

  def select_frames(self, num_frames, is_training):
    """See `FrameLevelModel.select_frames`."""
    count = self.config.iterations
    if count < 1:
      return super().select_frames(num_frames, is_training)
    num_real = tf.where_v2(num_frames > 0, count, 0)
    # The same answer twice in evaluation.
    method = self.config.sampling_in_training if is_training else "uniform"
    if method == "uniform":
      return frame_sampling.uniform_indices(num_frames, count), num_real
    if method == "random_frames":
      return frame_sampling.random_frame_indices(num_frames, count), num_real
    indices = frame_sampling.random_sequence_indices(num_frames, count)
    return indices, tf.minimum(num_frames, count)


@registry.register()
class FrameLevelLogisticModel(FrameLevelModel):
  """One logistic regression a class on the mean of the frames."""

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    **unused_params,
  ):
    """See `BaseModel.create_model`; an empty video has a mean of zeros."""
    del is_training
    mask = frames_lib.frame_mask(model_input, num_frames)
    mean = dbof_lib.pool_frames(model_input, mask, "average")
    logits = linear.penalised(
      mean, vocab_size, l2=_LOGISTIC_L2, scope="logistic"
    )
    return {
      "predictions": tf.nn.sigmoid(logits),
      "logits": logits,
      "descriptor": mean,
    }
