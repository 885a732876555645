"""Training steps of `benchmark.py`, and how long train.py takes to start."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

import model_flags
import program
import train
from scripts import baseline_steps
from scripts import benchmark_tools as tools
from scripts.benchmark_units import FEATURES, GIGA, Rows, Settings
from training import placement as cluster

_TAIL_LINES = 12
_MATRIX_SIZE = 2048
# The first steps wait for memory that the system hands out page by page.
_WARM_UPS = 3
# Of a model in training: weight, gradient, clipped gradient, two moments.
_BYTES_PER_PARAMETER = 5 * 4

_TRAIN = [sys.executable, os.path.abspath(train.__file__)]


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
    "feature_names": ",".join(prefix + name for name in FEATURES),
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


def parse_flags(given):
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
def open_training(given):
  """`_Training` of flags of train.py."""
  config, values = parse_flags(given)
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


def operations_of(tensors):
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
  with open_training(given) as training:
    graph, session, feed = training.graph, training.session, training.feed
    gradients = operations_of(gradient for gradient, _ in graph.gradients)
    logged = {
      **graph.step_fetches,
      "summary": graph.summary,
      "metrics": graph.metrics,
    }
    operations = tools.count_products(session, graph.step_fetches, feed)
    real = tools.measure(
      {"step": training.step}, **settings.budget, warm_ups=_WARM_UPS
    )
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
  achieved = operations / seconds / GIGA
  possible = product.operations / rounds.median("product") / GIGA
  return {
    "": {
      "examples_per_second": training.batch_size / seconds,
      "step_ms": 1e3 * seconds,
      "input_wait_ms": 1e3 * max(0.0, seconds - rounds.median("fed")),
      "gradients_ms": 1e3 * rounds.median("gradients"),
      "optimiser_ms": 1e3 * rounds.excess("fed", "gradients"),
      "summaries_ms": 1e3 * rounds.excess("logged", "fed"),
      "products_gflop": operations / GIGA,
      "gflop_per_second": achieved,
      "machine_gflops": possible,
      "share_of_machine": achieved / possible,
      "peak_gb": tools.peak_bytes() / GIGA,
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
  config, values = parse_flags(given)
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
        f"{num_parameters:,} parameters need {needed / GIGA:.1f} GB more, "
        f"but {tools.available_bytes() / GIGA:.1f} GB are available."
      )
    with open_training(given) as training:
      rounds = tools.measure(
        {"ours": training.fed, "plain": plain}, **settings.budget
      )
  return {
    "": {
      "step_ms": 1e3 * rounds.median("ours"),
      "plain_step_ms": 1e3 * rounds.median("plain"),
      "speedup": rounds.ratio("plain", "ours"),
      "plain_peak_gb": peak / GIGA,
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
  with open_training(given) as training:
    rounds = tools.measure({"fed": training.fed}, **settings.budget)
    milliseconds = 1e3 * rounds.median("fed")
    example = milliseconds / training.batch_size
  return {
    "": {
      "step_ms": milliseconds,
      "example_ms": example,
      "frame_ms": example / given["iterations"],
      "peak_gb": tools.peak_bytes() / GIGA,
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
      training = stack.enter_context(open_training({**given, **own}))
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
