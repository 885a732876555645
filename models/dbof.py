"""Deep bag of frames. Axes: B videos, T frames, D features, C classes."""

from models import frame_level
from pooling import dbof as dbof_lib
from pooling import frames as frames_lib
from pooling import linear as linear_lib
from pooling.mode import Mode


class DbofModel(frame_level.SampledFramesModel):
  """Deep bag of frames (Abu-El-Haija et al. 2016, section 4.1.2)."""

  def __init__(
    self,
    *,
    classifier,
    iterations,
    frame_sampling_method,
    cluster_size,
    hidden_size,
    pooling_method,
    activation,
    add_batch_norm,
    batch_norm_decay,
  ):
    """Keeps the configuration.

    Args:
      classifier: video-level model on the hidden layer.
      iterations: see `SampledFramesModel`.
      frame_sampling_method: see `SampledFramesModel`.
      cluster_size: int >= 1, units that are pooled over frames.
      hidden_size: int >= 1, units of the layer after pooling.
      pooling_method: "average" or "max".
      activation: "relu", "relu6" or "sigmoid", of both layers.
      add_batch_norm: bool, on the input and both layers.
      batch_norm_decay: float, see `batch_norm`.
    """
    super().__init__(
      iterations=iterations, frame_sampling_method=frame_sampling_method
    )
    self._classifier = classifier
    self._cluster_size = cluster_size
    self._hidden_size = hidden_size
    self._pooling_method = pooling_method
    self._activation = activation
    self._add_batch_norm = add_batch_norm
    self._batch_norm_decay = batch_norm_decay

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    precision=None,
    **unused_params,
  ):
    """See `BaseModel.create_model`."""
    mode = Mode(
      is_training=is_training,
      add_batch_norm=self._add_batch_norm,
      batch_norm_decay=self._batch_norm_decay,
      dtype=precision,
    )
    mask = frames_lib.frame_mask(model_input, num_frames)
    frames = frames_lib.normalize_input(model_input, mask, mode=mode)
    bag = dbof_lib.dbof(
      frames,
      mask,
      num_clusters=self._cluster_size,
      pooling_method=self._pooling_method,
      activation=self._activation,
      mode=mode,
    )
    hidden = linear_lib.linear(
      bag, self._hidden_size, mode=mode, scope="hidden1"
    )
    hidden = dbof_lib.ACTIVATIONS[self._activation](hidden)
    return self._classifier.create_model(
      hidden, vocab_size, is_training=is_training
    )
