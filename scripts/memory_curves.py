"""Memory and time of a submission or an evaluation, as videos go by.

  python scripts/memory_curves.py --job=submission
  python scripts/memory_curves.py --job=evaluation

There is no model and no data: a generator's predictions go through what
inference.py writes with, or what eval.py makes metrics and tables of. A score
is the probability that its class is a label; a video has three labels on
average, and hardly two scores are equal. Times are those of the generator too.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

import contextlib
import dataclasses
import resource
import tempfile
import time
from typing import Any

import tensorflow.compat.v1 as tf

import eval_util
from console import flag_fields
from evaluation import eval_curves, eval_tables
from predictions import predictor, submission
from scripts import markdown

# ru_maxrss is in kilobytes, on macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_LABELS = 3.0


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Sizes"):
  """What memory_curves.py is told."""

  job: str = flag_fields.choice(
    "submission", ["submission", "evaluation"], "What to measure."
  )
  num_videos: int = flag_fields.integer(1_100_000, "Videos.", low=1)
  num_classes: int = flag_fields.integer(3862, "Classes.", low=20)
  batch_size: int = flag_fields.integer(1024, "Videos of a batch.", low=1)
  rows: int = flag_fields.integer(11, "Rows of the table.", low=1)


class _Submission(submission.SubmissionWriter):
  """What inference.py keeps."""

  def __init__(self, config, directory):
    del config
    super().__init__(os.path.join(directory, "test.csv"))

  def add(self, ids, batch, labels):
    """Adds a batch."""
    del labels
    self.write(ids, batch["classes"], batch["scores"])


class _Evaluation(contextlib.AbstractContextManager):
  """What eval.py keeps."""

  def __init__(self, config, directory):
    del directory
    classes = config.num_classes
    self._metrics = eval_util.EvaluationMetrics(classes, predictor.TOP_K, None)
    self._tables = eval_tables.Tables(classes, num_listed=20)
    self._curves = eval_curves.Curves(classes)

  def add(self, ids, batch, labels):
    """Adds a batch."""
    found = {**batch, "loss": 1.0 - batch["scores"][:, 0]}
    self._metrics.accumulate_top_k(**found)
    self._tables.add(found, ids, labels)
    self._curves.add(found)

  def __exit__(self, *unused_exc_info):
    self._metrics.get()
    self._tables.confusions()


def _fetches(config):
  """The best predictions of a batch that is made up, and its labels."""
  shape = [config.batch_size, config.num_classes]
  # Of one draw in float32 small numbers would be few.
  draw = tf.random.uniform(shape) + tf.random.uniform(shape) * 2.0**-23
  scores = tf.exp(draw * (-config.num_classes / _LABELS))
  labels = tf.random.uniform(shape) < scores
  found = predictor.batch_metrics(scores, labels, predictor.TOP_K)
  return found, tf.where(labels)


def measure(config: Config) -> list[tuple[int, float, float]]:
  """(videos so far, peak memory in MB, microseconds a video since) by row.

  The last row is of the end: closing the file, or computing the metrics.
  """
  found, done = [], 0

  def note(count, start):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = time.perf_counter() - start
    found.append((done, peak * _MAXRSS_UNIT / 1e6, 1e6 * seconds / count))

  with (
    tempfile.TemporaryDirectory() as directory,
    tf.Graph().as_default(),
    tf.Session(config=program.session_config()) as session,
  ):
    tf.set_random_seed(0)
    fetches = _fetches(config)
    with _JOBS[config.job](config, directory) as job:
      for row in range(1, config.rows + 1):
        start, before = time.perf_counter(), done
        while done < config.num_videos * row / config.rows:
          ids = [b"v%010d" % (done + i) for i in range(config.batch_size)]
          job.add(ids, *session.run(fetches))
          done += config.batch_size
        note(max(done - before, 1), start)
      start = time.perf_counter()
    note(done, start)
  return found


_JOBS: dict[str, Any] = {"submission": _Submission, "evaluation": _Evaluation}


def main():
  """Measures, and prints the table."""
  found = measure(flag_fields.from_flags(Config))
  names = [f"{count:,}" for count, _, _ in found]
  names[-1] = "the end"
  rows = [
    [name, f"{peak:,.0f}", f"{micros:.1f}"]
    for name, (_, peak, micros) in zip(names, found)
  ]
  titles = ["videos", "peak memory, MB", "µs a video"]
  print(markdown.table(titles, rows))


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main)
