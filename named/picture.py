"""A picture of what a model predicts over a video's time.

It needs matplotlib, the extra `plots`.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

import files
from named import output

# Classes that are shown.
_ROWS = 12


def require() -> Any:
  """matplotlib's Figure; ValueError, which tells how to get it, without."""
  try:
    from matplotlib import figure
  except ImportError:
    raise ValueError(
      "--picture_dir needs matplotlib: pip install -c constraints.txt -e "
      "'.[plots]'"
    ) from None
  return figure.Figure


def draw(path: str, title: str, windows: Sequence[output.Window]) -> None:
  """Writes a PNG: a row a class, a column a window, brighter where surer.

  Args:
    path: the file.
    title: of the picture.
    windows: one after the other in time, at least one; a class that is not
      among a window's predictions counts as 0 there.
  """
  best: dict[str, float] = {}
  for window in windows:
    for name, score in zip(window.prediction.names, window.prediction.scores):
      best[name] = max(best.get(name, 0.0), float(score))
  names = sorted(best, key=best.__getitem__, reverse=True)[:_ROWS]
  scores = np.zeros([len(names), len(windows)])
  for column, window in enumerate(windows):
    found = dict(zip(window.prediction.names, window.prediction.scores))
    scores[:, column] = [found.get(name, 0.0) for name in names]
  width = min(16.0, 4.0 + 0.25 * len(windows))
  figure = require()(figsize=(width, 1.4 + 0.3 * len(names)), layout="tight")
  axes = figure.subplots()
  edges = [*(window.start for window in windows), windows[-1].end]
  mesh = axes.pcolormesh(
    edges, np.arange(len(names) + 1), scores, vmin=0.0, vmax=1.0
  )
  axes.set_yticks(np.arange(len(names)) + 0.5, [_plain(n) for n in names])
  axes.invert_yaxis()
  axes.set_xlabel("seconds")
  axes.set_title(_plain(title), fontsize="medium")
  figure.colorbar(mesh, ax=axes, label="score")
  with files.ReplacedFile(path, binary=True) as stream:
    figure.savefig(stream, format="png", dpi=120)


def path_for(directory: str, file: str, taken: set[str]) -> str:
  """A PNG's path in a directory, of a name that is not taken; takes it."""
  stem = os.path.splitext(os.path.basename(file))[0] or "video"
  name, number = stem, 1
  while name in taken:
    number += 1
    name = f"{stem}-{number}"
  taken.add(name)
  return os.path.join(directory, f"{name}.png")


def _plain(text):
  """Without what matplotlib takes for mathematics; not too long."""
  text = text.replace("$", r"\$")
  return text if len(text) <= 60 else f"{text[:57]}..."
