"""Models of tiny sizes, built as the programs build them, with random weights.

Axes: B videos, N frames of the batch, T frames a video, D features, C classes.
"""

import functools
import tempfile

import numpy as np
import tensorflow.compat.v1 as tf

import losses
import model_flags
import readers
from console import program
from tests import layers, runs
from tests.references import layers as references
from training import graph, placement

SIZES = {"rgb": 5, "audio": 2}
D, C = 7, 6
DECAY = 0.9  # Of batch norm's and whitening's averages.
LENGTHS = [4, 0, 1, 6]  # Frames in the file.

_VALUES = {
  "feature_names": ",".join(SIZES),
  "feature_sizes": ",".join(map(str, SIZES.values())),
  "num_classes": C,
  "batch_norm_decay": DECAY,
  "frame_sampling": "uniform",
  "iterations": 5,
  "moe_num_mixtures": 1,
  "moe_l2": 1e-6,
  "dbof_cluster_size": 4,
  "dbof_hidden_size": 3,
  "dbof_activation": "relu6",
  "dbof_relu": False,
  "fv_cluster_size": "4",
  "fv_hidden_size": 3,
  "fv_relu": False,
  "lstm_cells": 4,
  "gru_cells": 4,
  "netvlad_cluster_size": "4",
  "netvlad_hidden_batch_norm": True,
  "netvlad_hidden_size": 3,
  # Random units that are all 0 would hide all else.
  "netvlad_relu": False,
  "gating": True,
  "descriptor_dropout": 0.0,
  "nextvlad_cluster_size": "4",
  "nextvlad_hidden_size": 3,
  "groups": 2,
  "transformer_head_size": 2,
  "transformer_feed_forward_factor": 3,
  "transformer_dropout": 0.0,
  "transformer_residual": "zero_init",
  "attention_size": 4,
  "attention_queries": 2,
  "pma_inducing_points": 2,
  "pma_frame_blocks": 1,
  "pma_seed_blocks": 1,
  "boq_layers": 1,
  "boq_row_size": 3,
  "whitening_group_size": 2,
  "second_order_cluster_size": "3",
  "second_order_projection_size": 2,
}


def values(name, **changes):
  """The model flags' values of a tiny model."""
  level = {} if model_flags.is_frame_level(name) else runs.VIDEO_LEVEL
  return runs.model_values(**{"model": name, **_VALUES, **level, **changes})


def make(name, **changes):
  """A tiny `models.BaseModel` by its name; changes are flags."""
  return model_flags.build_model(values(name, **changes))


def stored(lengths, seed=0):
  """A list of videos, uint8 [n, D]."""
  rng = np.random.RandomState(seed)
  return [rng.randint(0, 256, [n, D]).astype(np.uint8) for n in lengths]


def prepared(videos):
  """What a model sees of stored frames: dequantised, of unit length."""
  return [
    np.reshape(
      [
        references.unit([x * 4 / 255 + 4 / 512 - 2 for x in map(int, frame)])
        for frame in video
      ],
      [len(video), D],
    )
    for video in videos
  ]


class Prepared:
  """prepare_input of unknown N and B."""

  def __init__(self, model, is_training, dtype=tf.uint8):
    with tf.Graph().as_default() as self.graph:
      tf.set_random_seed(1)
      self._features = tf.placeholder(dtype, [None, D])
      self._num_frames = tf.placeholder(tf.int32, [None])
      self.model_input, self.num_real = model.prepare_input(
        self._features, self._num_frames, is_training=is_training
      )
      assert self.model_input.shape.as_list()[-1] == D
      self.session = tf.Session(graph=self.graph)
      self._build(model, is_training)

  def _build(self, model, is_training):
    pass

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self.session.close()

  def run_stored(self, fetches, videos):
    """Runs on videos as a reader gives them."""
    feed = {
      self._features: np.concatenate([np.zeros([0, D]), *videos]),
      self._num_frames: [len(video) for video in videos],
    }
    return self.session.run(fetches, feed)


class Built(Prepared):
  """prepare_input and create_model, with random variables."""

  def _build(self, model, is_training):
    # Any number of frames may be fed, not only as many as are sampled.
    shape = [None] * (self.model_input.shape.rank - 1) + [D]
    self.model_input = tf.placeholder_with_default(self.model_input, shape)
    result = model.create_model(
      self.model_input,
      C,
      num_frames=self.num_real,
      is_training=is_training,
      labels=None,  # Callers may know more than the model needs.
    )
    self.predictions = result["predictions"]
    assert self.predictions.shape.as_list() == [None, C]
    self.descriptor = result.get("descriptor")
    assert (self.descriptor is not None) == model.is_frame_level
    if model.is_frame_level:
      assert self.descriptor.shape.as_list()[1]  # The width is known.
    # Nobody asks for those of evaluation.
    self.gradients = layers.gradients(self.predictions) if is_training else {}
    self.updates = layers.updates()
    self.penalties = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    self.trainable = layers.names(tf.trainable_variables())
    self.num_trainable = sum(
      v.shape.num_elements() for v in tf.trainable_variables()
    )
    self._initializer = tf.global_variables_initializer()
    self._variables = {v.op.name: v for v in tf.global_variables()}
    self.initial = layers.randomize(self.session)

  def run(self, fetches, videos, poison=layers.POISON, length=None):
    """Runs create_model on a list, not empty, of float videos [n, D]."""
    padded, real = layers.pad(videos, poison, length)
    feed = {self.model_input: padded, self.num_real: real.sum(axis=1)}
    return self.session.run(fetches, feed)

  def load(self, changes):
    """Sets variables."""
    layers.load(self.session, changes)

  def initialize(self):
    """Gives the variables the values that a training starts with."""
    self.session.run(self._initializer)

  def values(self):
    """{name: value} of all variables."""
    return self.session.run(self._variables)


def read(pattern, values):
  """(serialised records, {name: array} as a reader gives them) of files."""
  records = [
    record
    for path in readers.expand_data_pattern(pattern)
    for record in tf.python_io.tf_record_iterator(path)
  ]
  reader = model_flags.build_reader(values)
  with tf.Graph().as_default(), tf.Session() as session:
    return records, session.run(reader.parse_serialized(tf.constant(records)))


@functools.cache
def tiny_set(is_frame_level, feature_sizes, num_classes):
  """`read` of 12 videos that can be learnt."""
  prefix = "" if is_frame_level else "mean_"
  names = [prefix + name for name, _ in zip(SIZES, feature_sizes)]
  with tempfile.TemporaryDirectory() as directory:
    pattern = runs.write_data(
      directory,
      level="frame" if is_frame_level else "video",
      feature_names=",".join(names),
      feature_sizes=feature_sizes,
      num_classes=num_classes,
    )
    values = runs.model_values(
      frame_features=is_frame_level,
      feature_names=",".join(names),
      feature_sizes=",".join(map(str, feature_sizes)),
      num_classes=num_classes,
    )
    return read(pattern, values)


class Training:
  """The graph of train.py, which is fed with videos as a reader gives them.

  Attributes:
    batch: dict of tensors, what is fed.
    built: `graph.Graph`.
    session: `tf.Session`, its variables initialised.
  """

  def __init__(self, values, config):
    """Builds the graph.

    Args:
      values: the model flags' values.
      config: `train.Config`; its data are not looked at.
    """
    devices = placement.devices(
      placement.from_environment("{}"), config.num_gpu, config.num_towers
    )._replace(prefetches=False)  # A step is to be that of what is fed.
    depth = sum(map(int, values["feature_sizes"].split(",")))
    kind = tf.uint8 if values["frame_features"] else tf.float32
    with tf.Graph().as_default() as self.graph:
      tf.set_random_seed(config.seed)
      with tf.device(devices.host):
        self.batch = {
          "features": tf.placeholder(kind, [None, depth]),
          "num_frames": tf.placeholder(tf.int32, [None]),
          "labels": tf.placeholder(tf.bool, [None, values["num_classes"]]),
          "epoch": tf.constant(1, tf.int64),
        }
      self.built = graph.build(
        self.batch,
        model_flags.build_model(values),
        losses.get_loss(values["label_loss"], values),
        config,
        devices,
        num_classes=values["num_classes"],
      )
      self.session = tf.Session(
        config=program.session_config(devices.num_cpus, xla=config.xla)
      )
      self.session.run(tf.global_variables_initializer())

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self.session.close()

  def run(self, fetches, videos):
    """Runs on videos, {name: array}."""
    feed = {
      self.batch[name]: videos[name]
      for name in ("features", "num_frames", "labels")
    }
    return self.session.run(fetches, feed)

  def step(self, videos):
    """One step of training: (its loss, its `metrics`)."""
    built = self.built
    fetches = (built.loss, built.metrics, built.step_fetches)
    return self.run(fetches, videos)[:2]
