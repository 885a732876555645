"""What predict.py does: reads files, predicts for them, shows what is found."""

from console import program  # isort: skip  (before TensorFlow)

import contextlib
import os
import sys
from typing import Any

from absl import logging

import files
from named import model as model_lib
from named import output, picture, sources

# Videos that are predicted at once.
_BATCH = 16


class _Predictions:
  """Predicts for videos, a few at a time, and shows what is found."""

  def __init__(self, config, model, stream):
    self._config = config
    self._model = model
    kind: Any = output.Text
    if config.json or config.csv:
      kind = output.Json if config.json else output.Csv
    self._shown = kind(stream)
    self._waiting = []
    self._pictures = set()
    self.broken = []

  def add(self, video):
    """Takes a `sources.Video`."""
    self._waiting.append(video)
    if len(self._waiting) >= _BATCH:
      self.flush()

  def flush(self):
    """Predicts for what waits."""
    for video, prediction in zip(self._waiting, self._predict(self._waiting)):
      windows = self._windows(video)
      self._shown.add(video, prediction, windows)
      if self._config.picture_dir:
        name = video.video_id or video.file
        path = picture.path_for(self._config.picture_dir, name, self._pictures)
        picture.draw(path, video.name, windows)
    self._waiting = []

  def _predict(self, videos):
    return self._model.predict(
      [video.features for video in videos],
      top_k=self._config.top_k,
      is_stored=True,
    )

  def _windows(self, video):
    """list of `output.Window`."""
    if not self._config.window:
      return []
    fps = self._model.input.fps
    step = max(1, round(self._config.window * fps))
    starts = range(0, video.num_frames, step)
    ends = [min(start + step, video.num_frames) for start in starts]
    parts = [video.cut(start, end) for start, end in zip(starts, ends)]
    found = self._predict(parts)
    return [
      output.Window(start / fps, end / fps, prediction)
      for start, end, prediction in zip(starts, ends, found)
    ]


def _predict(config, paths, stream):
  """Predicts for some files; returns the exit status."""
  with model_lib.load(
    config.model, config.checkpoint, config.vocabulary
  ) as model:
    if config.window and not model.input.is_frame_level:
      raise ValueError("--window needs a model of frames, not of whole videos.")
    predictions = _Predictions(config, model, stream)
    encoder_dirs = [config.encoder_dir] if config.encoder_dir else []
    reader = sources.Sources(
      model.input, model.directory, encoder_dirs, config.timeout_secs
    )
    with contextlib.closing(reader):
      for path in _with_bar(paths):
        for found in reader.videos(path):
          if isinstance(found, sources.BrokenError):
            predictions.broken.append((path, str(found)))
          else:
            predictions.add(found)
    predictions.flush()
  if not predictions.broken:
    return None
  for name, reason in predictions.broken:
    logging.error("%s: %s.", name, reason.rstrip("."))
  logging.error("%d of these gave no prediction.", len(predictions.broken))
  return program.INCOMPLETE


def _with_bar(paths):
  """Yields the paths; where predictions go to a file, with a bar."""
  if len(paths) < 2 or sys.stdout.isatty():
    yield from paths
    return
  with program.progress_bar(len(paths), "files") as bar:
    for path in paths:
      yield path
      bar.update(1)


def run(config, words):
  """Predicts for files; returns the exit status.

  Args:
    config: `predict.Config`.
    words: list of str, the files and directories.
  """
  paths = sources.expand(words)
  if not paths:
    raise program.UserError(
      "Give files to predict for: videos, sounds, .npz, .npy or .tfrecord."
    )
  if config.picture_dir:
    picture.require()
    files.require_writable(config.picture_dir, "Give another --picture_dir.")
    os.makedirs(config.picture_dir, exist_ok=True)
  try:
    return _predict(config, paths, sys.stdout)
  except BrokenPipeError:  # Say, `| head` has seen enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return None
