"""Recurrent models. Axes: B videos, T frames, D features, H units."""

import abc
import dataclasses

import numpy as np
import tensorflow.compat.v1 as tf

from console import flag_fields
from models import configs, frame_level, registry
from pooling import frame_sampling, recurrent
from pooling import frames as frames_lib


class _RecurrentModel(frame_level.FrameLevelModel, abc.ABC):
  """What the recurrent models share: frames in their order, all features.

  Frames are of unit length, without batch norm. The products with the state
  are float32 in any precision.
  """

  @dataclasses.dataclass(frozen=True)
  class Config(configs.Classified, configs.Iterations):
    """The flags."""

    @property
    def random_sequence(self):
      """Whether --iterations frames are drawn at random."""
      raise NotImplementedError

    @property
    def sees_iterations(self):
      """See `configs.Iterations`."""
      return self.random_sequence

  def select_frames(self, num_frames, is_training):
    """See `FrameLevelModel.select_frames`.

    Frames that are drawn at random come in any order, as WILLOW's. Evaluation
    has evenly spread ones, in an order that looks like it and is always the
    same.
    """
    count = self.config.iterations
    if not self.config.random_sequence or count < 1:
      return super().select_frames(num_frames, is_training)
    if is_training:
      indices = frame_sampling.random_frame_indices(num_frames, count)
    else:
      indices = tf.gather(
        frame_sampling.uniform_indices(num_frames, count),
        np.random.RandomState(0).permutation(count),
        axis=1,
      )
    return indices, tf.minimum(num_frames, count)

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    precision=None,
    **unused_params,
  ):
    """See `BaseModel.create_model`; an empty video has states of zeros."""
    mask = frames_lib.frame_mask(model_input, num_frames)
    with tf.variable_scope("rnn"):
      states = self._states(model_input, mask, precision)
    result = self.classifier.create_model(
      states, vocab_size, is_training=is_training
    )
    return {**result, "descriptor": states}

  @abc.abstractmethod
  def _states(self, frames, mask, dtype):
    """What the classifier sees.

    Args:
      frames: float32 [B, T, D].
      mask: bool [B, T], True on real frames.
      dtype: of the products with frames, see `recurrent.lstm`.

    Returns:
      float32 [B, any].
    """


@dataclasses.dataclass(frozen=True)
class _Lstm(_RecurrentModel.Config, group="Recurrent"):
  """Of LSTMs."""

  lstm_cells: int = flag_fields.integer(
    1024,
    "Units of an LSTM layer; half of them for each direction in BiLstmModel's "
    "first one.",
    low=1,
  )
  lstm_random_sequence: bool = flag_fields.boolean(
    False,
    "LSTMs see --iterations frames, drawn at random in any order; else all.",
  )

  @property
  def random_sequence(self):
    """See `_RecurrentModel.Config`."""
    return self.lstm_random_sequence


@dataclasses.dataclass(frozen=True)
class _Gru(_RecurrentModel.Config, group="Recurrent"):
  """Of GRUs."""

  gru_cells: int = flag_fields.integer(
    1024,
    "Units of a GRU layer; half of them for each direction in BiGruModel's "
    "first one.",
    low=1,
  )
  gru_random_sequence: bool = flag_fields.boolean(
    False,
    "GRUs see --iterations frames, drawn at random in any order; else all.",
  )

  @property
  def random_sequence(self):
    """See `_RecurrentModel.Config`."""
    return self.gru_random_sequence


@registry.register()
class LstmModel(_RecurrentModel):
  """A stack of LSTMs; the classifier sees their last states.

  Cell and output of each layer, [c1, h1, c2, h2], in WILLOW's code (Miech,
  Laptev, Sivic 2017); the output of the last layer in the starter code's.
  """

  @dataclasses.dataclass(frozen=True)
  class Config(_Lstm, group="Recurrent"):
    """The flags."""

    lstm_layers: int = flag_fields.integer(2, "LSTM layers.", low=1)
    lstm_backward: bool = flag_fields.boolean(
      False, "LstmModel reads a video from its end."
    )
    lstm_output: str = flag_fields.choice(
      "states",
      ("states", "last"),
      "What the classifier sees: cells and outputs of all layers (WILLOW's "
      "code), or the last layer's output (the starter code).",
    )

  def _states(self, frames, mask, dtype):
    config = self.config
    states = []
    for layer in range(config.lstm_layers):
      # Reversed outputs are in the frames' order: the next layer reverses too.
      frames, cell, output = recurrent.lstm(
        frames,
        mask,
        units=config.lstm_cells,
        reverse=config.lstm_backward,
        dtype=dtype,
        scope=f"lstm{layer}",
      )
      states += [cell, output]
    return states[-1] if config.lstm_output == "last" else tf.concat(states, 1)


@registry.register()
class GruModel(_RecurrentModel):
  """A stack of GRUs; the classifier sees their last states, as WILLOW's."""

  @dataclasses.dataclass(frozen=True)
  class Config(_Gru, group="Recurrent"):
    """The flags."""

    gru_layers: int = flag_fields.integer(2, "GRU layers.", low=1)
    gru_backward: bool = flag_fields.boolean(
      False, "GruModel reads a video from its end."
    )

  def _states(self, frames, mask, dtype):
    config = self.config
    states = []
    for layer in range(config.gru_layers):
      frames, state = recurrent.gru(
        frames,
        mask,
        units=config.gru_cells,
        reverse=config.gru_backward,
        dtype=dtype,
        scope=f"gru{layer}",
      )
      states.append(state)
    return tf.concat(states, axis=1)


@registry.register(aliases=("Lstmbidirect",))
class BiLstmModel(_RecurrentModel):
  """An LSTM on a bidirectional one; the classifier sees its cell.

  Half of the units in each direction (Skalic, Pekalski, Pan 2017).
  """

  Config = _Lstm

  def _states(self, frames, mask, dtype):
    units = self.config.lstm_cells
    both = _both_ways(recurrent.lstm, "lstm", frames, mask, units, dtype)
    _, cell, _ = recurrent.lstm(
      both, mask, units=units, dtype=dtype, scope="lstm"
    )
    return cell


@registry.register(aliases=("GRUbidirect",))
class BiGruModel(_RecurrentModel):
  """A GRU on a bidirectional one; the classifier sees its last state.

  Half of the units in each direction (Skalic, Pekalski, Pan 2017, whose code
  counts them by --lstm_cells).
  """

  Config = _Gru

  def _states(self, frames, mask, dtype):
    units = self.config.gru_cells
    both = _both_ways(recurrent.gru, "gru", frames, mask, units, dtype)
    _, state = recurrent.gru(both, mask, units=units, dtype=dtype, scope="gru")
    return state


def _both_ways(layer, name, frames, mask, units, dtype):
  """Outputs of a layer in each direction: float32 [B, T, about H]."""
  outputs = []
  for direction in ("forward", "backward"):
    found, *_ = layer(
      frames,
      mask,
      units=max(1, units // 2),
      reverse=direction == "backward",
      dtype=dtype,
      scope=f"{name}_{direction}",
    )
    outputs.append(found)
  return tf.concat(outputs, axis=2)
