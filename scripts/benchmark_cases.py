"""The measurements of `benchmark.py`, each in a process of its own.

A `Unit` names one of this module's functions and its arguments; `run_apart`
calls it in a new process, whose peak memory then is the unit's. It returns rows
of a table: {row: {figure: number}}. A figure's name tells its unit, see
`benchmark.py`.

Axes: B videos, T frames, D features, K centres, H heads of h dimensions,
C classes.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import program  # isort: skip  (before TensorFlow)

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import signal
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

import cluster
import eval_util
import inference as inference_program
import model_flags
import predictor
import readers
import train
import train_dir
from pooling import democratic, moments, netvlad, transformer, whitening
from scripts import (
  baseline_layers,
  baseline_metrics,
  baseline_readers,
  baseline_steps,
)
from scripts import benchmark_tools as tools

_UNIT_TIMEOUT = 1200.0
_TAIL_LINES = 12
_FEATURES = ("rgb", "audio")
_GIGA = 1e9
_INPUT_BATCH = 64
_INFERENCE_BATCH = 64
_METRICS_BATCH = 1024
_MATRIX_SIZE = 2048
# Of a model in training: weight, gradient, clipped gradient, two moments.
_BYTES_PER_PARAMETER = 5 * 4

_TRAIN = [sys.executable, os.path.abspath(train.__file__)]

Rows = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Settings:
  """The sizes and budgets of all measurements; most are the flag of the name.

  Attributes:
    data_dir: directory of frame/*.tfrecord and video/*.tfrecord.
    feature_sizes: sizes of rgb and audio.
    num_classes: C.
    batch_size: B of frame-level models.
    video_batch_size: B of video-level models.
    clusters: K.
    hidden_size: units of the hidden layer.
    frames: T, sampled of each video.
    max_frames: T of all frames of a video.
    shuffle_buffer: records in the buffer of the reader alone.
    metrics_videos: videos to compute metrics of.
    repeats: rounds that are wanted.
    seconds: budget of a measurement.
    memory_gb: memory in which the largest batch is looked for.
  """

  data_dir: str
  feature_sizes: tuple[int, ...]
  num_classes: int
  batch_size: int
  video_batch_size: int
  clusters: int
  hidden_size: int
  frames: int
  max_frames: int
  shuffle_buffer: int
  metrics_videos: int
  repeats: int
  seconds: float
  memory_gb: float

  @property
  def budget(self) -> dict[str, Any]:
    """Arguments of `benchmark_tools.measure`."""
    return {"repeats": self.repeats, "seconds": self.seconds}

  def pattern(self, level: str) -> str:
    """The files of level "frame" or "video"."""
    return os.path.join(self.data_dir, level, "*.tfrecord")


class Unit(NamedTuple):
  """What one process measures.

  Attributes:
    case: the table it belongs to.
    name: its row, or what it is called if it makes several.
    function: name of a function of this module, called with `Settings`.
    arguments: further arguments, of JSON's types.
  """

  case: str
  name: str
  function: str
  arguments: dict[str, Any]


class UnitFailed(Exception):
  """A unit's process failed; the message is the end of what it said."""


def run_apart(settings: Settings, unit: Unit) -> Rows:
  """Measures a unit in a new process.

  Raises:
    UnitFailed: it failed, or took too long.
  """
  process = subprocess.Popen(
    [sys.executable, os.path.abspath(__file__)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    # Ctrl-C is for the program that asked for the unit, which then ends the
    # unit's group: the unit and the processes it has asked for.
    start_new_session=True,
    env={k: v for k, v in os.environ.items() if k != "TF_CONFIG"},
  )
  given = {"settings": dataclasses.asdict(settings), "unit": unit._asdict()}
  try:
    stdout, stderr = process.communicate(json.dumps(given), _UNIT_TIMEOUT)
  except subprocess.TimeoutExpired:
    raise UnitFailed(f"took longer than {_UNIT_TIMEOUT:.0f} s") from None
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()
  if process.returncode:
    lines = [line for line in stderr.splitlines() if line.strip()]
    raise UnitFailed(
      "\n".join([f"status {process.returncode}", *lines[-_TAIL_LINES:]])
    )
  return json.loads(stdout.splitlines()[-1])


def run_forked(settings: Settings, unit: Unit) -> Rows:
  """Measures a unit in a fork of this process.

  Of a unit's process that has only imported so far: TensorFlow, once it has
  computed something, has threads, which a fork would lack. To import all of it
  once more would take most of the time.

  Raises:
    UnitFailed: it failed.
  """
  context = multiprocessing.get_context("fork")
  receiver, sender = context.Pipe(duplex=False)

  def send():
    try:
      sender.send((run_unit(settings, unit), None))
    except Exception:  # Handed on, with its traceback, to the parent.
      sender.send((None, traceback.format_exc()))

  process = context.Process(target=send)
  process.start()
  sender.close()
  try:
    rows, error = receiver.recv()
  except EOFError:
    rows, error = None, "killed, for want of memory?"
  process.join()
  if error:
    raise UnitFailed(f"{unit.name}, {unit.arguments}: {error}")
  return rows


def run_unit(settings: Settings, unit: Unit) -> Rows:
  """Measures a unit in this process."""
  rows = globals()[unit.function](settings, **unit.arguments)
  # A function that makes one row leaves its name to the unit.
  return {name or unit.name: figures for name, figures in rows.items()}


# Training.


def train_flags(settings: Settings, model: str, **changes: Any) -> dict:
  """Flags of train.py for a model at the settings' sizes.

  Args:
    settings: the sizes.
    model: str, registered.
    **changes: further flags, which prevail.
  """
  is_frame_level = model_flags.is_frame_level(model)
  prefix = "" if is_frame_level else "mean_"
  given = {
    "model": model,
    "frame_features": is_frame_level,
    "feature_names": ",".join(prefix + name for name in _FEATURES),
    "feature_sizes": ",".join(map(str, settings.feature_sizes)),
    "num_classes": settings.num_classes,
    "max_frames": settings.max_frames,
    "train_data_pattern": settings.pattern(
      "frame" if is_frame_level else "video"
    ),
    "num_epochs": 0,
    "batch_size": settings.video_batch_size,
    # A rate at which random labels do no harm.
    "base_learning_rate": 1e-4,
    "seed": 0,
  }
  if is_frame_level:
    given |= {
      "batch_size": settings.batch_size,
      "iterations": settings.frames,
      "netvlad_cluster_size": settings.clusters,
      "netvlad_hidden_size": settings.hidden_size,
    }
  return {**given, **changes}


def _as_list(given):
  return [f"--{name}={value}" for name, value in given.items()]


def _parse(given):
  """(`train.Config`, values of the model flags) of flags of train.py."""
  known = flags.FlagValues()
  train.define_flags(known)
  known(["train.py", *_as_list(given)])
  return train.Config.from_flags(known), model_flags.from_flags(known)


class _Training(NamedTuple):
  """A graph of train.py in its session, at its first step.

  Attributes:
    graph: `train.Graph`.
    session: `tf.Session`.
    feed: {tensor: array}, a batch that takes the place of the reader's.
    batch_size: videos in it.
  """

  graph: train.Graph
  session: tf.Session
  feed: dict
  batch_size: int

  def step(self):
    """A step as train.py takes it."""
    self.session.run(self.graph.step_fetches)

  def fed(self):
    """A step on the batch that is there already."""
    self.session.run(self.graph.step_fetches, self.feed)


@contextlib.contextmanager
def _training(given):
  """`_Training` of flags of train.py."""
  config, values = _parse(given)
  with tf.Graph().as_default():
    trainer = train.Trainer(config, values, cluster.from_environment("{}"))
    graph = trainer.build(0, 0)
    session_config = program.session_config(
      num_cpus=max(1, config.num_towers), xla=config.xla
    )
    with tf.Session(config=session_config) as session:
      session.run(
        [tf.global_variables_initializer(), graph.iterator.initializer]
      )
      batch = session.run(graph.batch)
      feed = {graph.batch[name]: value for name, value in batch.items()}
      yield _Training(graph, session, feed, len(batch["num_frames"]))


def _operations(tensors):
  """What to run so that tensors are computed, but not copied out.

  Of a `tf.group` TensorFlow would drop whatever nobody reads.
  """
  return [tensor.op for tensor in tensors]


def step(settings: Settings, given: dict[str, Any]) -> Rows:
  """A training step, and what it consists of.

  Real steps come one after the other, as in training, where the reader works
  while a step is computed. Then the parts, in turn: a step on a batch that is
  fed, its gradients alone, and with summaries and metrics. The difference of
  two is what one has and the other lacks.

  Args:
    settings: budgets.
    given: flags of train.py.
  """
  with _training(given) as training:
    graph, session, feed = training.graph, training.session, training.feed
    gradients = _operations(gradient for gradient, _ in graph.gradients)
    logged = {
      **graph.step_fetches,
      "summary": graph.summary,
      "metrics": graph.metrics,
    }
    operations = tools.count_products(session, graph.step_fetches, feed)
    real = tools.measure({"step": training.step}, **settings.budget)
    product = tools.MatrixProduct(_MATRIX_SIZE)
    rounds = tools.measure(
      {
        "fed": training.fed,
        "gradients": lambda: session.run(gradients, feed),
        "logged": lambda: session.run(logged, feed),
        "product": product,
      },
      **settings.budget,
    )
  seconds = real.median("step")
  achieved = operations / seconds / _GIGA
  possible = product.operations / rounds.median("product") / _GIGA
  return {
    "": {
      "examples_per_second": training.batch_size / seconds,
      "step_ms": 1e3 * seconds,
      "input_wait_ms": 1e3 * max(0.0, seconds - rounds.median("fed")),
      "gradients_ms": 1e3 * rounds.median("gradients"),
      "optimiser_ms": 1e3 * rounds.excess("fed", "gradients"),
      "summaries_ms": 1e3 * rounds.excess("logged", "fed"),
      "products_gflop": operations / _GIGA,
      "gflop_per_second": achieved,
      "machine_gflops": possible,
      "share_of_machine": achieved / possible,
      "peak_gb": tools.peak_bytes() / _GIGA,
      "repeats": min(real.repeats, rounds.repeats),
    }
  }


def plain_step(settings: Settings, given: dict[str, Any], way: str) -> Rows:
  """A gated NetVLAD's step against one of `baseline_steps`.

  In turn, both on a batch in memory: ours as the reader gives it, the
  baseline's padded.

  Args:
    settings: sizes and budgets.
    given: flags of train.py.
    way: a key of `PLAIN_STEPS`.

  Raises:
    MemoryError: too little for both at a time.
  """
  config, values = _parse(given)
  rng = np.random.default_rng(0)
  shape = (config.batch_size, settings.max_frames, sum(settings.feature_sizes))
  classes = settings.num_classes
  batch = (
    tools.random_frames(rng, shape),
    rng.random([config.batch_size, classes]) < 3.0 / classes,
  )
  sizes = {
    "feature_sizes": list(settings.feature_sizes),
    "num_frames": values["iterations"],
    "num_clusters": int(values["netvlad_cluster_size"]),
    "hidden_size": values["netvlad_hidden_size"],
    "l2_penalty": values["moe_l2"],
  }
  with PLAIN_STEPS[way](batch, sizes) as (plain, num_parameters):
    plain()
    peak = tools.peak_bytes()
    needed = _BYTES_PER_PARAMETER * num_parameters
    if tools.available_bytes() < needed:
      raise MemoryError(
        f"{num_parameters:,} parameters need {needed / _GIGA:.1f} GB more, "
        f"but {tools.available_bytes() / _GIGA:.1f} GB are available."
      )
    with _training(given) as training:
      rounds = tools.measure(
        {"ours": training.fed, "plain": plain}, **settings.budget
      )
  return {
    "": {
      "step_ms": 1e3 * rounds.median("ours"),
      "plain_step_ms": 1e3 * rounds.median("plain"),
      "speedup": rounds.ratio("plain", "ours"),
      "plain_peak_gb": peak / _GIGA,
      "repeats": rounds.repeats,
    }
  }


@contextlib.contextmanager
def _slim_training(batch, sizes):
  """(function that takes a step by `tf.Session`, number of parameters)."""
  with tf.Graph().as_default():
    placeholders = [
      tf.placeholder(array.dtype, [None, *array.shape[1:]]) for array in batch
    ]
    _, loss = baseline_steps.plain_gated_netvlad(*placeholders, **sizes)
    step_op = baseline_steps.plain_train_op(loss)
    feed = dict(zip(placeholders, batch))
    num_parameters = _count_parameters(tf.trainable_variables())
    with tf.Session(config=program.session_config()) as session:
      session.run(tf.global_variables_initializer())
      yield lambda: session.run(step_op, feed) and None, num_parameters


@contextlib.contextmanager
def _keras_training(batch, sizes):
  """(function that takes a step by `tf.function`, number of parameters)."""
  model = baseline_steps.KerasGatedNetVLAD(
    num_classes=batch[1].shape[1], **sizes
  )
  step = model.train_step_function()
  tensors = [tf.constant(array) for array in batch]
  # In a thread of its own, where no graph is being built, TensorFlow is eager.
  with futures.ThreadPoolExecutor(1) as thread:

    def run():
      thread.submit(lambda: step(*tensors).numpy()).result()

    run()
    yield run, _count_parameters(model.trainable_variables)


def _count_parameters(variables):
  return sum(int(np.prod(variable.shape)) for variable in variables)


PLAIN_STEPS = {"slim": _slim_training, "Keras": _keras_training}


def startup(settings: Settings, given: dict[str, Any]) -> Rows:
  """From the start of train.py to the end of its first step."""
  del settings  # All sizes are in the flags.
  start = time.perf_counter()
  with tempfile.TemporaryDirectory() as directory:
    given = {**given, "train_dir": directory, "log_steps": 1}
    with subprocess.Popen(
      [*_TRAIN, *_as_list(given)], stderr=subprocess.PIPE, text=True
    ) as process:
      said = []
      for line in process.stderr:
        said.append(line)
        if "training step 1 " in line:
          break
      seconds = time.perf_counter() - start
      # Asked to end, it would write a checkpoint first.
      process.kill()
  if "training step 1 " not in said[-1]:
    raise RuntimeError(f"train.py took no step: {''.join(said[-_TAIL_LINES:])}")
  return {"": {"first_step_seconds": seconds, "repeats": 1}}


def startup_help(settings: Settings) -> Rows:
  """`train.py --help`."""
  rounds = tools.measure(
    {"help": lambda: subprocess.run([*_TRAIN, "--help"], capture_output=True)},
    **settings.budget,
  )
  return {
    "": {"help_seconds": rounds.median("help"), "repeats": rounds.repeats}
  }


def scaling(settings: Settings, given: dict[str, Any]) -> Rows:
  """A step on a batch in memory, and what a video and a frame of it cost."""
  with _training(given) as training:
    rounds = tools.measure({"fed": training.fed}, **settings.budget)
    milliseconds = 1e3 * rounds.median("fed")
    example = milliseconds / training.batch_size
  return {
    "": {
      "step_ms": milliseconds,
      "example_ms": example,
      "frame_ms": example / given["iterations"],
      "peak_gb": tools.peak_bytes() / _GIGA,
      "repeats": rounds.repeats,
    }
  }


def towers(
  settings: Settings, given: dict[str, Any], counts: list[int]
) -> Rows:
  """A step in one tower and in several, on CPU devices, of the same videos.

  Args:
    settings: budgets.
    given: flags of train.py, `batch_size` for all towers.
    counts: numbers of towers, the first 1.
  """
  with contextlib.ExitStack() as stack:
    variants = {}
    for count in counts:
      own = {"num_towers": count, "num_gpu": 0}
      own["batch_size"] = given["batch_size"] // count
      training = stack.enter_context(_training({**given, **own}))
      variants[str(count)] = training.fed
    rounds = tools.measure(variants, **settings.budget)
  return {
    f"{count} towers": {
      "step_ms": 1e3 * rounds.median(str(count)),
      "tower_overhead": rounds.ratio(str(count), str(counts[0])) - 1.0,
      "repeats": rounds.repeats,
    }
    for count in counts
  }


# Pooling layers.


class _Layer(NamedTuple):
  """A layer and its baseline.

  Attributes:
    inputs: function of settings and B: list of tensors, variables among them.
    ours: function of those.
    direct: function of those.
  """

  inputs: Callable
  ours: Callable
  direct: Callable


def _variable(name, shape):
  """Random numbers that a gradient is asked for."""
  return tf.get_variable(
    name, shape, initializer=tf.random_normal_initializer(stddev=0.1)
  )


def _codebook(settings, batch_size, depth=None, num_clusters=None):
  """Frames [B, T, D], mask [B, T], weights [B, T, K], centres [K, D]."""
  depth = depth or settings.feature_sizes[0]
  num_clusters = num_clusters or settings.clusters
  shape = [batch_size, settings.frames]
  return [
    tf.identity(_variable("frames", [*shape, depth])),
    tf.ones(shape, tf.bool),
    tf.nn.softmax(_variable("logits", [*shape, num_clusters])),
    tf.identity(_variable("centres", [num_clusters, depth])),
  ]


def _projected(settings, batch_size):
  """`_codebook` of the second order's size: 64 dimensions, fewer centres."""
  return _codebook(
    settings,
    batch_size,
    min(_PROJECTION, settings.feature_sizes[0]),
    max(1, settings.clusters // 4),
  )


def _heads(settings, batch_size):
  """Queries, keys, values [B, H, T, h], mask [B, T], of four times T frames."""
  length = 4 * settings.frames
  num_heads = max(1, settings.feature_sizes[0] // _HEAD_SIZE)
  shape = [batch_size, num_heads, length, _HEAD_SIZE]
  return [
    *(tf.identity(_variable(name, shape)) for name in "qkv"),
    tf.ones([batch_size, length], tf.bool),
  ]


def _vlad(*inputs):
  return netvlad.vlad(*inputs, democratic=democratic.Config(False, False, 0))


def _unit_residual_sums(frames, mask, weights, centres):
  distances = moments.squared_distances(frames, mask, centres)
  weights = moments.per_length(weights, distances, 1)
  return moments.first(frames, mask, weights, centres)


def _whitened_sum(frames, mask, weights, centres):
  distances = moments.squared_distances(frames, mask, centres)
  return whitening.whitened_sum(
    frames,
    mask,
    weights,
    centres,
    distances,
    group_size=_GROUP_SIZE,
    is_training=True,
    decay=0.999,
  )


def _second(frames, mask, weights, centres):
  depth = frames.shape.as_list()[2]
  return moments.second(frames, mask, weights, centres, group_size=depth)


_HEAD_SIZE, _GROUP_SIZE, _PROJECTION = 16, 16, 64
LAYERS = {
  "VLAD (3)": _Layer(_codebook, _vlad, baseline_layers.vlad),
  "unit residuals": _Layer(
    _codebook, _unit_residual_sums, baseline_layers.unit_residual_sums
  ),
  "whitened (5)": _Layer(
    _codebook,
    _whitened_sum,
    functools.partial(baseline_layers.whitened_sum, group_size=_GROUP_SIZE),
  ),
  "second order (7)": _Layer(_projected, _second, baseline_layers.second),
  "Gram matrix (4)": _Layer(_codebook, moments.gram, baseline_layers.gram),
  "attention (2)": _Layer(
    _heads, transformer.attention, baseline_layers.attention
  ),
}
MODEL = "AttentionNetVLADModel"
_WAYS = ("ours", "direct")


@contextlib.contextmanager
def _layer(settings, name, way, batch_size):
  """(function that runs a layer, one that runs its gradient as well)."""
  layer = LAYERS[name]
  with tf.Graph().as_default():
    tf.set_random_seed(0)
    output = getattr(layer, way)(*layer.inputs(settings, batch_size))
    # The gradient of half the sum of squares.
    backward = tf.gradients(output, tf.trainable_variables(), output)
    both = _operations([output, *backward])
    with tf.Session(config=program.session_config()) as session:
      session.run(tf.global_variables_initializer())
      yield lambda: session.run(output.op), lambda: session.run(both)


@contextlib.contextmanager
def _model(settings, way, batch_size):
  """(None, function that runs a step of the model)."""
  by_residuals = way == "direct"
  with (
    baseline_layers.materialised_vlad()
    if by_residuals
    else contextlib.nullcontext()
  ):
    given = train_flags(settings, MODEL, batch_size=batch_size)
    with _training(given) as training:
      yield None, training.fed


def _runs_of(settings, name, way, batch_size):
  if name == MODEL:
    return _model(settings, way, batch_size)
  return _layer(settings, name, way, batch_size)


def pooling(settings: Settings, layer: str) -> Rows:
  """A layer, or the model with it, against its baseline: time and memory.

  Args:
    settings: sizes and budgets.
    layer: a key of `LAYERS`, or `MODEL`.
  """
  figures = {}
  for way in _WAYS:
    unit = _memory_unit(layer, way, settings.batch_size)
    figures |= run_forked(settings, unit)[unit.name]
  for kind in ("peak", "step"):
    ours, direct = (figures[f"{way}_{kind}_gb"] for way in _WAYS)
    figures[f"{kind}_saving"] = direct / max(ours, 1e-3)
  with contextlib.ExitStack() as stack:
    variants = {}
    for way in _WAYS:
      forward, both = stack.enter_context(
        _runs_of(settings, layer, way, settings.batch_size)
      )
      if forward:
        variants[f"{way}_forward"] = forward
      variants[f"{way}_both"] = both
    rounds = tools.measure(variants, **settings.budget)
  times = {}
  for kind in ("forward", "both"):
    if f"ours_{kind}" in variants:
      for way in _WAYS:
        times[f"{way}_{kind}_ms"] = 1e3 * rounds.median(f"{way}_{kind}")
      times[f"{kind}_speedup"] = rounds.ratio(f"direct_{kind}", f"ours_{kind}")
  return {"": {**times, **figures, "repeats": rounds.repeats}}


def _memory_unit(layer, way, batch_size):
  arguments = {"layer": layer, "way": way, "batch_size": batch_size}
  return Unit("pooling", layer, "memory", arguments)


def memory(settings: Settings, layer: str, way: str, batch_size: int) -> Rows:
  """Peak memory of this process, and what the runs added to it."""
  with _runs_of(settings, layer, way, batch_size) as (_, both):
    before = tools.current_bytes()
    for _ in range(2):
      both()
  peak = tools.peak_bytes()
  return {
    "": {
      f"{way}_peak_gb": peak / _GIGA,
      f"{way}_step_gb": (peak - before) / _GIGA,
    }
  }


def largest_batch(settings: Settings, layer: str) -> Rows:
  """The largest batch, by doubling, whose peak stays below --memory_gb."""
  figures = {}
  for way in _WAYS:
    figures[f"{way}_batch"], figures[f"{way}_peak_gb"] = _double(
      settings, layer, way
    )
  figures["batch_saving"] = figures["ours_batch"] / max(
    1, figures["direct_batch"]
  )
  return {"": figures}


def _double(settings, layer, way):
  """(largest B, its peak in GB) of those that were tried; (0, 0) if none."""
  best, best_peak, batch_size = 0, 0.0, settings.batch_size
  expected = 0.0
  while expected < settings.memory_gb:
    unit = _memory_unit(layer, way, batch_size)
    peak = run_forked(settings, unit)[layer][f"{way}_peak_gb"]
    if peak >= settings.memory_gb:
      break
    # What B videos added, 2 B add once more; at first all counts as added.
    expected = peak + 2 * max(0.0, peak - best_peak) if best else peak
    best, best_peak, batch_size = batch_size, peak, 2 * batch_size
  return best, best_peak


# The reader.

# Batches that are read in one go.
_READ_BATCHES = 64
# As train.py's defaults have it.
_READING = {"batch_size": _INPUT_BATCH, "num_readers": 8, "num_epochs": None}


def _records(settings):
  return baseline_readers.Records(
    readers.expand_data_pattern(settings.pattern("frame")),
    list(_FEATURES),
    list(settings.feature_sizes),
    settings.num_classes,
    settings.max_frames,
  )


def _our_data(settings):
  paths, *own = _records(settings)
  # Shorter than the shuffle buffer, an epoch would be drained to its end.
  count = max(1, readers.estimate_num_records(paths))
  paths *= -(-_READ_BATCHES * _INPUT_BATCH // count)
  reader = readers.YT8MFrameFeatureReader(
    **dict(zip(baseline_readers.Records._fields[1:], own))
  )
  return reader.batches(
    paths,
    deterministic=False,
    shuffle_buffer=settings.shuffle_buffer,
    **_READING,
  )


def _plain_data(settings):
  return baseline_readers.plain_batches(
    _records(settings), shuffle_buffer=settings.shuffle_buffer, **_READING
  )


@contextlib.contextmanager
def _dataset_reading(data_of, settings):
  """Function that reads on, and returns how many videos it has read."""
  with tf.Graph().as_default():
    iterator = tf.data.make_initializable_iterator(data_of(settings))
    # Nothing but the number leaves the session, though all of a batch is made.
    size = tf.size(iterator.get_next()["num_frames"])
    with tf.Session(config=program.session_config()) as session:
      session.run(iterator.initializer)
      yield lambda: _read_on(session, size)


@contextlib.contextmanager
def _starter_reading(settings):
  """Like `_dataset_reading`, by the starter code's queues."""
  with tf.Graph().as_default():
    batch = baseline_readers.starter_batches(_records(settings), **_READING)
    size = tf.size(batch["num_frames"])
    with (
      tf.Session(config=program.session_config()) as session,
      baseline_readers.running_queues(session),
    ):
      yield lambda: _read_on(session, size)


def _read_on(session, size):
  return sum(int(session.run(size)) for _ in range(_READ_BATCHES))


_READERS = {
  "ours": functools.partial(_dataset_reading, _our_data),
  "plain tf.data": functools.partial(_dataset_reading, _plain_data),
  "starter code's": _starter_reading,
}


def reading(settings: Settings) -> Rows:
  """The readers, their buffers full: speed, processor time, memory."""
  peaks = {}
  for way in _READERS:
    unit = Unit("input", way, "reading_memory", {"way": way})
    peaks |= run_forked(settings, unit)
  processor = {way: [] for way in _READERS}
  videos = {}

  def timed(way, read):
    before = time.process_time()
    videos[way] = read()
    processor[way].append(time.process_time() - before)

  with contextlib.ExitStack() as stack:
    reads = {
      way: stack.enter_context(reading_of(settings))
      for way, reading_of in _READERS.items()
    }
    for read in reads.values():
      read()
    rounds = tools.measure(
      {way: functools.partial(timed, way, read) for way, read in reads.items()},
      **settings.budget,
      warm_ups=0,
    )
  used = tools.Rounds(processor)
  buffered = 4 * settings.max_frames * sum(settings.feature_sizes)
  return {
    way: {
      "videos_per_second": videos[way] / rounds.median(way),
      "videos_per_cpu_second": videos[way] / used.median(way),
      "thousand_videos_cpu_seconds": 1000 * used.median(way) / videos[way],
      "speedup": rounds.ratio("starter code's", way),
      "cpu_time_speedup": used.ratio("starter code's", way),
      "buffered_record_bytes": (
        _mean_record_bytes(settings) if way == "ours" else buffered
      ),
      **peaks[way],
      "repeats": rounds.repeats,
    }
    for way in _READERS
  }


def _mean_record_bytes(settings):
  paths = readers.expand_data_pattern(settings.pattern("frame"))
  sizes = [
    len(record)
    for path in paths[:1]
    for record in tf.python_io.tf_record_iterator(path)
  ]
  return float(np.mean(sizes))


def reading_memory(settings: Settings, way: str) -> Rows:
  """Peak memory of a process that reads."""
  with _READERS[way](settings) as read:
    before = tools.current_bytes()
    read()
  peak = tools.peak_bytes()
  return {"": {"peak_gb": peak / _GIGA, "reading_gb": (peak - before) / _GIGA}}


# Metrics.


def metrics(settings: Settings) -> Rows:
  """Metrics of an evaluation, from all predictions and from the best of each.

  The baseline has a tenth of the videos.
  """
  rng = np.random.default_rng(0)
  shape = (settings.metrics_videos, settings.num_classes)
  predictions = rng.random(shape, np.float32)
  labels = rng.random(shape, np.float32) < 3.0 / settings.num_classes
  parts = [
    slice(start, start + _METRICS_BATCH)
    for start in range(0, shape[0], _METRICS_BATCH)
  ]
  few = max(1, shape[0] // 10)

  def new():
    return eval_util.EvaluationMetrics(shape[1], predictor.TOP_K, None)

  def dense():
    found = new()
    for part in parts:
      found.accumulate(predictions[part], labels[part], 0.0)
    found.get()

  def heaps():
    found = baseline_metrics.HeapMetrics(
      shape[1], min(predictor.TOP_K, shape[1])
    )
    found.accumulate(predictions[:few], labels[:few])
    found.get()

  with _best_of_batches(predictions, labels, parts) as best:
    batches = best()

    def accumulate():
      found = new()
      for batch in batches:
        found.accumulate_top_k(**batch, loss=0.0)
      found.get()

    rounds = tools.measure(
      {"dense": dense, "best": best, "accumulate": accumulate, "heaps": heaps},
      **settings.budget,
    )
  seconds = {name: rounds.median(name) for name in rounds.seconds}
  heaps_rate = few / seconds["heaps"]
  rates = {
    "all predictions": shape[0] / seconds["dense"],
    "best in the graph": shape[0] / (seconds["best"] + seconds["accumulate"]),
    "best given": shape[0] / seconds["accumulate"],
    "heaps": heaps_rate,
  }
  return {
    name: {
      "videos_per_second": rate,
      "speedup": rate / heaps_rate,
      "repeats": rounds.repeats,
    }
    for name, rate in rates.items()
  }


@contextlib.contextmanager
def _best_of_batches(predictions, labels, parts):
  """Function that makes `predictor.batch_metrics` of all batches."""
  with tf.Graph().as_default():
    scores = tf.placeholder(tf.float32, [None, predictions.shape[1]])
    truth = tf.placeholder(tf.bool, scores.shape)
    fetches = predictor.batch_metrics(scores, truth, predictor.TOP_K)
    with tf.Session(config=program.session_config()) as session:
      yield lambda: [
        session.run(fetches, {scores: predictions[part], truth: labels[part]})
        for part in parts
      ]


# Inference.


def inference(settings: Settings, given: dict[str, Any]) -> Rows:
  """From records to the CSV, against the model on batches in memory.

  What inference takes for one file is taken off what it takes for all, so that
  building the graph does not count.

  Args:
    settings: budgets.
    given: flags of train.py.
  """
  config, values = _parse(given)
  paths = readers.expand_data_pattern(config.train_data_pattern)
  with (
    tempfile.TemporaryDirectory() as directory,
    _predicting(values, paths) as (predict, count_of),
  ):
    config = dataclasses.replace(
      config, train_dir=directory, max_steps=1, optimizer=_SMALL_OPTIMIZER
    )
    task = cluster.from_environment("{}")
    train.Trainer(config, values, task).run()
    checkpoint = train_dir.latest_checkpoint(directory)

    def infer(some):
      inference_program.infer(
        checkpoint,
        values,
        some,
        os.path.join(directory, "predictions.csv"),
        batch_size=_INFERENCE_BATCH,
        num_readers=1,
      )

    num_videos = count_of(paths) - count_of(paths[:1])
    infer(paths[:1])
    predict()
    rounds = tools.measure(
      {
        "one": lambda: infer(paths[:1]),
        "all": lambda: infer(paths),
        "model": predict,
      },
      **settings.budget,
      warm_ups=0,
    )
  rate = num_videos / max(rounds.excess("all", "one"), 1e-9)
  alone = count_of(paths) / rounds.median("model")
  return {
    "": {
      "videos_per_second": rate,
      "model_videos_per_second": alone,
      "share_of_model": rate / alone,
      "repeats": rounds.repeats,
    }
  }


# It has no slots, which the checkpoint would hold.
_SMALL_OPTIMIZER = "GradientDescentOptimizer"


@contextlib.contextmanager
def _predicting(values, paths):
  """Function that predicts for all videos, which are held in memory.

  And one that tells how many videos files have.
  """
  reader = model_flags.build_reader(values)
  model = model_flags.build_model(values)

  def batches_of(some):
    return reader.batches(
      some, batch_size=_INFERENCE_BATCH, require_labels=False
    )

  def count(some):
    return sum(
      1 for path in some for _ in tf.python_io.tf_record_iterator(path)
    )

  with tf.Graph().as_default():
    iterator = tf.data.make_initializable_iterator(batches_of(paths))
    batch = iterator.get_next()
    best = predictor.top_k(
      predictor.predict(model, batch, reader.num_classes), predictor.TOP_K
    )
    with tf.Session(config=program.session_config()) as session:
      session.run([tf.global_variables_initializer(), iterator.initializer])
      feeds = []
      with contextlib.suppress(tf.errors.OutOfRangeError):
        while True:
          found = session.run(batch)
          feeds.append({batch[name]: found[name] for name in batch})
      yield (
        lambda: [session.run(best, feed) for feed in feeds] and None,
        count,
      )


def main():
  """Measures the unit on stdin, and prints its rows as the last line."""
  given = json.load(sys.stdin)
  sizes = given["settings"]
  sizes["feature_sizes"] = tuple(sizes["feature_sizes"])
  rows = run_unit(Settings(**sizes), Unit(**given["unit"]))
  print(json.dumps(rows))


if __name__ == "__main__":
  main()
