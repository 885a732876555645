"""Deep bag of frames. Axes: B videos, T frames, D features, C classes."""

import dataclasses

import flag_fields
from models import configs, frame_level, registry
from pooling import dbof as dbof_lib
from pooling import frames as frames_lib
from pooling import linear as linear_lib
from pooling.mode import Mode


@registry.register()
class DbofModel(frame_level.SampledFramesModel):
  """Deep bag of frames (Abu-El-Haija et al. 2016, section 4.1.2)."""

  @dataclasses.dataclass(frozen=True)
  class Config(
    configs.Classified, configs.Sampling, configs.BatchNorm, group="DBoF"
  ):
    """The flags."""

    dbof_cluster_size: int = flag_fields.integer(
      8192, "Units of DbofModel's cluster layer.", low=1
    )
    dbof_hidden_size: int = flag_fields.integer(
      1024, "Units of DbofModel's hidden layer.", low=1
    )
    dbof_add_batch_norm: bool = flag_fields.boolean(
      True, "Batch norm on DbofModel's input and both layers."
    )
    dbof_pooling_method: str = flag_fields.choice(
      "max", ("average", "max"), "How DbofModel pools over frames."
    )
    dbof_activation: str = flag_fields.choice(
      "sigmoid",
      ("relu", "relu6", "sigmoid"),
      "Activation of DbofModel's layers.",
    )

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
    config = self.config
    mode = Mode(
      is_training=is_training,
      add_batch_norm=config.dbof_add_batch_norm,
      batch_norm_decay=config.batch_norm_decay,
      dtype=precision,
    )
    mask = frames_lib.frame_mask(model_input, num_frames)
    frames = frames_lib.normalize_input(model_input, mask, mode=mode)
    bag = dbof_lib.dbof(
      frames,
      mask,
      num_clusters=config.dbof_cluster_size,
      pooling_method=config.dbof_pooling_method,
      activation=config.dbof_activation,
      mode=mode,
    )
    hidden = linear_lib.linear(
      bag, config.dbof_hidden_size, mode=mode, scope="hidden1"
    )
    hidden = dbof_lib.ACTIVATIONS[config.dbof_activation](hidden)
    return self.classifier.create_model(
      hidden, vocab_size, is_training=is_training
    )
