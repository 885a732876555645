"""What `benchmark.py` measures: functions of `Settings`.

Each returns {row: {figure: number}}, medians over rounds. In a round all that
is compared runs once, in turn: whatever else slows the machine slows all of it.

Axes: B videos, T frames, K centres, C classes.
"""

import contextlib
import dataclasses
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

import eval_util
import model_flags
import readers
import train
from console import flag_fields, program
from predictions import predictor, submission
from scripts import baselines, comparison_runs
from training import placement

_LEAST_ROUNDS = 3
_FEATURES = ("rgb", "audio")
# Names of flags' families, of as many centres and units for all.
_CLUSTERED = ("netvlad", "nextvlad", "fv")
# ru_maxrss is in kilobytes, on macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
# Of the reader alone; a round is so many batches.
_READ_BATCH, _READ_BATCHES = 64, 64
# As inference.py's default has it, and the least batches of a round.
_INFERENCE_BATCH, _INFERENCE_BATCHES = 256, 10
_METRICS_BATCH, _METRICS_BATCHES = 1024, 20
# Of the matrix product that is taken for the machine's fastest.
_PEAK_SIZE = 2048

# Models and sizes with names of their own: flags of train.py.
_GATED: dict[str, Any] = {
  "model": "NetVLADModelLF",
  "gating": True,
  "moe_prob_gating": True,
  "netvlad_relu": False,
  "moe_l2": 1e-6,
}
_GATED_256: dict[str, Any] = {
  **_GATED,
  "netvlad_cluster_size": 256,
  "netvlad_hidden_size": 1024,
  "iterations": 300,
  "batch_size": 80,
}
_NEXTVLAD: dict[str, Any] = {
  "model": "NeXtVLADModel",
  "nextvlad_cluster_size": 128,
  "nextvlad_hidden_size": 2048,
  "groups": 8,
  "expansion": 2,
  "iterations": 300,
  "batch_size": 80,
}
CONFIGURATIONS = {
  "gated-netvlad": _GATED,
  "gated-netvlad-256": _GATED_256,
  "gated-netvlad-mixed": {**_GATED, "mixed_precision": True},
  "gated-netvlad-256-mixed": {**_GATED_256, "mixed_precision": True},
  # At its published sizes.
  "nextvlad-128": _NEXTVLAD,
}

Rows = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Settings(flag_fields.Config, group="Sizes"):
  """Sizes and budgets."""

  data_dir: str = flag_fields.path(
    None,
    "Directory of frame/*.tfrecord and video/*.tfrecord to read; where there "
    "is none, synthetic ones are made and stay. A temporary directory if not "
    "given.",
  )
  seconds: float = flag_fields.real(
    5.0, f"Time of each row, which has {_LEAST_ROUNDS} rounds at least.", low=0
  )
  batch_size: int = flag_fields.integer(
    16, "Videos a step; 64 times as many of a video-level model.", low=1
  )
  clusters: int = flag_fields.integer(64, "Centres.", low=1)
  hidden_size: int = flag_fields.integer(
    512, "Units of the layer after pooling.", low=1
  )
  frames: int = flag_fields.integer(64, "Frames sampled of each video.", low=1)
  max_frames: int = flag_fields.integer(
    300, "Frames of the longest video; the shortest has 0.4 of them.", low=3
  )
  feature_sizes: str = flag_fields.integers(
    "1024,128", "Sizes of rgb and audio."
  )
  num_classes: int = flag_fields.integer(3862, "Classes.", low=3)
  num_videos: int = flag_fields.integer(
    512, "Synthetic videos of each level.", low=1
  )

  def __post_init__(self):
    super().__post_init__()
    if len(self.sizes) != len(_FEATURES):
      raise ValueError(
        "--feature_sizes: need those of rgb and audio, got "
        f"{self.feature_sizes!r}."
      )

  @property
  def sizes(self) -> list[int]:
    """Sizes of rgb and audio."""
    return flag_fields.parse_ints(self.feature_sizes)

  def paths(self, level: str, least: int = 0) -> list[str]:
    """The files of a level, as often as makes so many videos at least."""
    pattern = os.path.join(self.data_dir, level, "*.tfrecord")
    paths = readers.expand_data_pattern(pattern)
    return paths * max(1, -(-least // readers.estimate_num_records(paths)))


def measure(
  variants: Mapping[Any, Callable[[], Any]], seconds: float
) -> dict[Any, list[float]]:
  """Runs all variants in turn, again and again.

  Args:
    variants: name to function. One that returns a float has timed itself.
    seconds: no round begins after so many, but the least number of them.

  Returns:
    {name: seconds of each round}; a first one, to warm up, is left out.
  """
  for run in variants.values():
    run()
  found = {name: [] for name in variants}
  rounds, end = 0, time.perf_counter() + seconds
  while rounds < _LEAST_ROUNDS or time.perf_counter() < end:
    rounds += 1
    for name, run in variants.items():
      start = time.perf_counter()
      own = run()
      spent = time.perf_counter() - start
      found[name].append(own if isinstance(own, float) else spent)
  return found


def ratio(ours: list[float], others: list[float]) -> float:
  """How many times longer the others take: the median of the rounds' ratios."""
  return statistics.median(b / a for a, b in zip(ours, others))


def read(settings: Settings) -> Rows:
  """The readers alone, their buffers full."""
  records = baselines.Records(
    # Shorter than the shuffle buffer, an epoch would be drained to its end.
    settings.paths("frame", _READ_BATCH * _READ_BATCHES),
    _FEATURES,
    settings.sizes,
    settings.num_classes,
    settings.max_frames,
  )
  paths, *own = records
  reader = readers.YT8MFrameFeatureReader(**dict(zip(records._fields[1:], own)))
  # As train.py's defaults have it.
  reading: dict[str, Any] = {
    "batch_size": _READ_BATCH,
    "num_readers": 8,
    "num_epochs": None,
  }
  buffer = {"shuffle_buffer": 1024}
  ways = {
    "ours": lambda: reader.batches(
      paths, deterministic=False, **buffer, **reading
    ),
    "plain tf.data": lambda: baselines.plain_batches(
      records, **buffer, **reading
    ),
  }
  with contextlib.ExitStack() as stack:
    runs = {
      way: stack.enter_context(_reading(make)) for way, make in ways.items()
    }
    seconds = measure(runs, settings.seconds)
  return {
    way: {
      "videos_per_second": 1 / statistics.median(seconds[way]),
      "speedup": ratio(seconds[way], seconds["plain tf.data"]),
    }
    for way in ways
  }


@contextlib.contextmanager
def _reading(make):
  """Function that reads on: seconds of a video, from a dataset."""
  config = program.session_config()
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    iterator = tf.data.make_initializable_iterator(make())
    session.run(iterator.initializer)
    # Nothing but the number leaves the session, though all of a batch is made.
    size = tf.size(iterator.get_next()["num_frames"])

    def read_on():
      start = time.perf_counter()
      count = sum(int(session.run(size)) for _ in range(_READ_BATCHES))
      return (time.perf_counter() - start) / count

    yield read_on


def train_flags(settings: Settings, name: str, **changes: Any) -> dict:
  """Flags of train.py for a model or a configuration at the settings' sizes."""
  own = CONFIGURATIONS.get(name, {"model": name})
  given = {
    "feature_sizes": settings.feature_sizes,
    "num_classes": settings.num_classes,
    "num_epochs": 0,
    # A rate at which random labels do no harm.
    "base_learning_rate": 1e-4,
    "seed": 0,
  }
  if model_flags.is_frame_level(own["model"]):
    given |= {
      "frame_features": True,
      "feature_names": ",".join(_FEATURES),
      "train_data_pattern": ",".join(settings.paths("frame")),
      "batch_size": settings.batch_size,
      "max_frames": settings.max_frames,
      "iterations": settings.frames,
      **{f"{name}_cluster_size": settings.clusters for name in _CLUSTERED},
      **{f"{name}_hidden_size": settings.hidden_size for name in _CLUSTERED},
    }
  else:
    given |= {
      "feature_names": ",".join(f"mean_{name}" for name in _FEATURES),
      "train_data_pattern": ",".join(settings.paths("video")),
      "batch_size": 64 * settings.batch_size,
    }
  return {**given, **own, **changes}


class _PlainTrainer(train.Trainer):
  """Trains the plain model in place of ours, None if there is none."""

  def __init__(self, *args):
    """See the base class."""
    super().__init__(*args)
    self._model = baselines.plain_model(self._model)

  @property
  def exists(self):
    """Whether there is a plain model."""
    return self._model is not None


def make_trainer(
  given: dict, trainer_class: type[train.Trainer] = train.Trainer
) -> tuple[Any, dict[str, Any]]:
  """(`Trainer`, values of the model flags) of flags of train.py."""
  known = comparison_runs.parse_train_flags(
    [f"--{name}={value}" for name, value in given.items()]
  )
  config = flag_fields.from_flags(train.Config, known)
  values = model_flags.from_flags(known)
  task = placement.from_environment("{}")
  return trainer_class(config, values, task), values


@dataclasses.dataclass
class Training:
  """A training that takes a step when it is told to.

  Attributes:
    session: `tf.Session`, its variables initialised.
    built: `graph.Graph`.
    batch: dict of tensors, what the reader gives.
    stored: dict of arrays, a batch.
  """

  session: Any
  built: Any
  batch: dict[str, Any]
  stored: dict[str, Any]

  @property
  def feed(self) -> dict:
    """The stored batch in place of the reader's."""
    return {self.batch[name]: value for name, value in self.stored.items()}

  def take(self) -> None:
    """A step from records."""
    self.session.run(self.built.step_fetches)

  def fed(self) -> None:
    """A step from memory."""
    self.session.run(self.built.step_fetches, self.feed)

  def refill(self) -> None:
    """Lets the next step be one of the stored batch, see `prefetch.py`."""
    fill = self.built.fill
    if fill is not None:
      # A step takes what is there, and puts the stored batch there.
      self.fed()

  def trace(self) -> tf.RunMetadata:
    """What a step from memory ran."""
    return traced(self.session, self.built.step_fetches, self.feed)


@contextlib.contextmanager
def begin(
  trainer: train.Trainer, num_towers: int = 1, xla: bool = False
) -> Iterator[Training]:
  """Begins a training: `Training`."""
  config = program.session_config(num_towers, xla=xla)
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    iterator = tf.data.make_initializable_iterator(trainer.data(0, 0))
    batch = iterator.get_next()
    built = trainer.build(batch)
    session.run([tf.global_variables_initializer(), iterator.initializer])
    if built.fill is not None:
      session.run(built.fill)
    yield Training(session, built, batch, session.run(batch))


@contextlib.contextmanager
def training(trainer: train.Trainer) -> Iterator:
  """Functions: a step from records, one from memory, the trace of one."""
  with begin(trainer) as begun:
    yield begun.take, begun.fed, begun.trace


def traced(session: Any, fetches: Any, feed: Any = None) -> tf.RunMetadata:
  """What a run did, operation by operation."""
  trace = tf.RunMetadata()
  options = tf.RunOptions(
    trace_level=tf.RunOptions.FULL_TRACE, output_partition_graphs=True
  )
  session.run(fetches, feed, options, trace)
  return trace


def count_flops(trace: tf.RunMetadata) -> float:
  """Multiplications and additions of a run's matrix products.

  Those within loops and functions count, as often as they ran.
  """
  shapes: dict[str, list] = {}  # {operation: its first output's at each run}
  for device in trace.step_stats.dev_stats:
    for run in device.node_stats:
      for output in run.output[:1]:
        found = [dim.size for dim in output.tensor_description.shape.dim]
        shapes.setdefault(run.node_name, []).append(found)
  flops = 0.0
  for graph in trace.partition_graphs:
    for node in graph.node:
      factor = shapes.get(node.input[0].split(":")[0]) if node.input else None
      if "MatMul" in node.op and factor:
        turned = node.attr["transpose_a"].b or node.attr["adj_x"].b
        inner = factor[0][-2 if turned else -1]
        outer = sum(np.prod(each, dtype=float) for each in shapes[node.name])
        flops += 2.0 * inner * outer
  return flops


def memory_in_use(trace: tf.RunMetadata, on_gpu: bool) -> float:
  """Most bytes in use while a run was traced, by a GPU or the process."""
  if not on_gpu:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
  found = [
    memory.allocator_bytes_in_use
    for device in trace.step_stats.dev_stats
    for node in device.node_stats
    for memory in node.memory
    if "gpu" in memory.allocator_name.lower()
  ]
  return max(found, default=0)


@contextlib.contextmanager
def large_product(size: int = _PEAK_SIZE, dtype: Any = tf.float32) -> Iterator:
  """(function that makes a large matrix product, its operations)."""
  config = program.session_config()
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    matrix = tf.Variable(tf.cast(tf.random.normal([size, size]), dtype))
    product = tf.matmul(matrix, matrix).op
    session.run(matrix.initializer)
    yield lambda: session.run(product), 2.0 * size**3


def step(settings: Settings, name: str) -> Rows:
  """A model's training step, from records and from memory, and a plain one."""
  given = train_flags(settings, name)
  with contextlib.ExitStack() as stack:
    trainer, _ = make_trainer(given)
    ours = stack.enter_context(begin(trainer))
    ours.take()
    # It begins with what the parent process had at the start, which is less.
    peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    product, product_flops = stack.enter_context(large_product())
    variants = {"step": ours.take, "memory": ours.fed, "product": product}
    plain, _ = make_trainer(given, _PlainTrainer)
    if plain.exists:
      variants["plain"] = stack.enter_context(begin(plain)).fed
    seconds = measure(variants, settings.seconds)
    flops = count_flops(ours.trace())
  medians = {name: statistics.median(own) for name, own in seconds.items()}
  peak = product_flops / min(seconds["product"])
  figures = {
    "examples_per_second": given["batch_size"] / medians["step"],
    "step_ms": 1e3 * medians["step"],
    "memory_step_ms": 1e3 * medians["memory"],
    "peak_gb": peak_memory * _MAXRSS_UNIT / 1e9,
    "product_gflops": flops / 1e9,
    "share_of_peak": flops / medians["memory"] / peak,
  }
  if plain.exists:
    figures["plain_step_ms"] = 1e3 * medians["plain"]
    figures["speedup"] = ratio(seconds["memory"], seconds["plain"])
  return {name: figures}


def towers(settings: Settings) -> Rows:
  """A step in one tower and in several, on CPU devices, of as many videos."""
  counts = [count for count in (1, 2, 4) if count <= settings.batch_size]
  with contextlib.ExitStack() as stack:
    variants = {}
    for count in counts:
      own = {"num_towers": count, "num_gpu": 0}
      own["batch_size"] = settings.batch_size // count
      given = train_flags(settings, "gated-netvlad", **own)
      trainer, _ = make_trainer(given)
      variants[count] = stack.enter_context(begin(trainer, count)).fed
    seconds = measure(variants, settings.seconds)
  return {
    f"{count} towers": {
      "step_ms": 1e3 * statistics.median(seconds[count]),
      "tower_overhead": ratio(seconds[1], seconds[count]) - 1.0,
    }
    for count in counts
  }


def metrics(settings: Settings) -> Rows:
  """An evaluation's metrics, each video's best found in the graph."""
  rng = np.random.default_rng(0)
  shape = (_METRICS_BATCH, settings.num_classes)
  with tf.Graph().as_default(), tf.Session() as session:
    scores = tf.placeholder(tf.float32, shape)
    truth = tf.placeholder(tf.bool, shape)
    fetches = predictor.batch_metrics(scores, truth, predictor.TOP_K)
    labels = rng.random(shape, np.float32) < 3.0 / settings.num_classes
    feed = {scores: rng.random(shape, np.float32), truth: labels}

    def compute():
      found = eval_util.EvaluationMetrics(shape[1], predictor.TOP_K, None)
      for _ in range(_METRICS_BATCHES):
        found.accumulate_top_k(**session.run(fetches, feed), loss=0.0)
      found.get()

    seconds = measure({"": compute}, settings.seconds)[""]
  num_videos = _METRICS_BATCH * _METRICS_BATCHES
  rate = num_videos / statistics.median(seconds)
  return {"metrics": {"videos_per_second": rate}}


def infer(settings: Settings, name: str) -> Rows:
  """From records to the CSV, against the model on a batch in memory.

  Rates are those between the first batch and the last: neither building the
  graph nor filling the pipeline counts.
  """
  with contextlib.ExitStack() as stack:
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    given = train_flags(settings, name, train_dir=directory, max_steps=1)
    # No optimiser's state, which the checkpoint would hold.
    given |= {"optimizer": "GradientDescentOptimizer", "export_model_steps": 0}
    trainer, values = make_trainer(given)
    trainer.run()
    paths = settings.paths(
      "frame" if values["frame_features"] else "video",
      _INFERENCE_BATCH * _INFERENCE_BATCHES,
    )
    data = {"batch_size": _INFERENCE_BATCH, "use_labels": False}
    with predictor.Predictor(values, paths, lambda b, _: b, **data) as videos:
      stored = next(iter(videos))
    inputs, best = {}, []

    def fetch(batch, predictions):
      inputs.update(batch)
      best.extend(predictor.top_k(predictions, predictor.TOP_K))
      return (batch["video_ids"], *best)

    videos = stack.enter_context(
      predictor.Predictor(values, paths, fetch, **data)
    )
    videos.restore(directory)
    feed = {inputs[key]: value for key, value in stored.items()}

    def from_records():
      counts, times = [], []
      path = os.path.join(directory, "predictions.csv")
      with submission.SubmissionWriter(path) as writer:
        for found in videos:
          writer.write(*found)
          counts.append(len(found[0]))
          times.append(time.perf_counter())
      return (times[-1] - times[0]) / sum(counts[1:])

    def from_memory():
      start = time.perf_counter()
      tf.get_default_session().run(best, feed)
      return (time.perf_counter() - start) / len(stored["video_ids"])

    seconds = measure(
      {"all": from_records, "model": from_memory}, settings.seconds
    )
  return {
    name: {
      "videos_per_second": 1 / statistics.median(seconds["all"]),
      "model_videos_per_second": 1 / statistics.median(seconds["model"]),
      "share_of_model": ratio(seconds["all"], seconds["model"]),
    }
  }
