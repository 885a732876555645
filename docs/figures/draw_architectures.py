"""Draws the four architectures of the paper, for light and for dark pages.

  python docs/figures/draw_architectures.py

writes architectures-light.svg and architectures-dark.svg beside itself, the
same bytes each time. Needs matplotlib: pip install -e '.[plots]'.
"""

import pathlib
import sys
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("svg")

from matplotlib import patches, pyplot

_WIDTH, _HEIGHT = 100.0, 62.0  # Of the drawing, in its own units.
_COLUMN = 25.0
_BOX_HEIGHT = 4.6
# The middles of what stands in the rows, from top to bottom.
_ROWS = (52.5, 45.5, 38.5, 31.5, 24.5, 17.5)


class Colours(NamedTuple):
  """Of one version; the page itself shines through."""

  text: str
  faint: str
  plain: str  # Boxes of what NetVLAD has.
  added: str  # Boxes of what the paper adds.


_VERSIONS = {
  "light": Colours("#1f2328", "#59636e", "#eaeef2", "#cfe3fb"),
  "dark": Colours("#f0f6fc", "#9198a1", "#2a313c", "#17406f"),
}


class Column:
  """One architecture, drawn downwards around a middle."""

  def __init__(self, axes: Any, colours: Colours, number: int) -> None:
    self._axes = axes
    self._colours = colours
    self.middle = _COLUMN * (number + 0.5)

  def text(
    self, y: float, text: str, size: float, *, faint: bool = False
  ) -> None:
    self._axes.text(
      self.middle,
      y,
      text,
      size=size,
      color=self._colours.faint if faint else self._colours.text,
      ha="center",
      va="center",
    )

  def title(self, name: str, where: str) -> None:
    self.text(60.0, name, 8.5)
    self.text(57.5, where, 7.0, faint=True)

  def box(
    self,
    row: int,
    text: str,
    *,
    added: bool = False,
    shift: float = 0.0,
    width: float = 20.0,
  ) -> None:
    """A box; `shift` moves it sideways from the middle."""
    x = self.middle + shift
    self._axes.add_patch(
      patches.FancyBboxPatch(
        (x - width / 2, _ROWS[row] - _BOX_HEIGHT / 2),
        width,
        _BOX_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.8",
        facecolor=self._colours.added if added else self._colours.plain,
        edgecolor=self._colours.faint,
        linewidth=0.6,
      )
    )
    self._axes.text(
      x,
      _ROWS[row],
      text,
      size=7.5,
      color=self._colours.text,
      ha="center",
      va="center",
      linespacing=1.25,
    )

  def arrow(self, start: int, end: int, *, shift: float = 0.0) -> None:
    """From the bottom of a row's box to the top of another's."""
    x = self.middle + shift
    self.line(
      (x, _ROWS[start] - _BOX_HEIGHT / 2), (x, _ROWS[end] + _BOX_HEIGHT / 2)
    )

  def line(self, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow between two points."""
    self._axes.annotate(
      "",
      xy=end,
      xytext=start,
      arrowprops={
        "arrowstyle": "-|>",
        "color": self._colours.faint,
        "linewidth": 0.9,
        "mutation_scale": 7,
        "shrinkA": 0,
        "shrinkB": 0,
      },
    )


def _netvlad(column: Column) -> None:
  column.title("NetVLADModelLF", "the baseline")
  column.box(0, "frames: T × D")
  column.box(2, "assignments\nlinear, softmax: T × K", width=18, shift=-2)
  column.box(4, "sums of residuals: K × D")
  column.arrow(0, 2, shift=-2)
  column.arrow(2, 4, shift=-2)
  column.arrow(0, 4, shift=8.8)
  column.arrow(4, 5)


def _attention_enhanced(column: Column) -> None:
  column.title("AttentionEnhancedNetVLAD", "section 3.1, figure 1")
  column.box(0, "frames: T × D")
  column.box(1, "Transformer encoder\nover frames: T × D", added=True)
  column.box(2, "assignments\nlinear, softmax: T × K", width=18, shift=-2)
  column.box(3, "sums of residuals: K × D")
  column.box(4, "Transformer encoder\nover centres: K × D", added=True)
  column.arrow(0, 1)
  column.arrow(1, 2, shift=-2)
  column.arrow(1, 3, shift=8.8)
  column.arrow(2, 3, shift=-2)
  column.arrow(3, 4)
  column.arrow(4, 5)


def _attention(column: Column) -> None:
  column.title("AttentionNetVLAD", "section 3.2, figure 2")
  column.box(0, "frames: T × D")
  column.box(
    1, "Transformer encoder\ng1: T × D", added=True, width=18, shift=-2
  )
  column.box(
    2, "Transformer encoder\ng2: T × K", added=True, width=18, shift=-2
  )
  column.box(3, "assignments\nsoftmax: T × K", width=18, shift=-2)
  column.box(4, "sums of residuals: K × D")
  for row in range(4):
    column.arrow(row, row + 1, shift=-2)
  column.arrow(0, 4, shift=8.8)
  column.arrow(4, 5)


def _second_order(column: Column) -> None:
  column.title("SecondOrder", "section 3.3, figure 3")
  half, width = 5.9, 11.0
  column.box(0, "frames: T × D", width=22.8)
  column.box(1, "projection\nT × P", added=True, shift=half, width=width)
  column.box(2, "assignments\nT × K", shift=-half, width=width)
  column.box(2, "assignments\nT × K'", added=True, shift=half, width=width)
  column.box(
    3, "masses and\nunit residuals", added=True, shift=-half, width=width
  )
  column.box(
    3, "outer products\nK' × P × P", added=True, shift=half, width=width
  )
  column.box(4, "whitening\nK × D", added=True, shift=-half, width=width)
  column.box(
    4, "upper triangle\nsquare root", added=True, shift=half, width=width
  )
  column.arrow(0, 2, shift=-half)
  for row in (0, 1, 2, 3):
    column.arrow(row, row + 1, shift=half)
  for row in (2, 3):
    column.arrow(row, row + 1, shift=-half)
  for shift in (-half, half):
    column.arrow(4, 5, shift=shift)


def _stage(axes: Any, colours: Colours, middle: float, text: str) -> None:
  """A box of those that stand side by side."""
  axes.add_patch(
    patches.FancyBboxPatch(
      (middle - 15.0, 8.2),
      30.0,
      _BOX_HEIGHT,
      boxstyle="round,pad=0,rounding_size=0.8",
      facecolor=colours.plain,
      edgecolor=colours.faint,
      linewidth=0.6,
    )
  )
  axes.text(
    middle, 10.5, text, size=7.5, color=colours.text, ha="center", va="center"
  )


def _tail(axes: Any, colours: Colours) -> None:
  """What all four share, below them."""
  column = Column(axes, colours, 1)
  column.middle = _WIDTH / 2
  column.box(
    5,
    "one descriptor a video: those of rgb and audio side by side, each with "
    "centres of its own",
    width=97.8,
  )
  for x, text in (
    (-32.6, "hidden layer"),
    (0.0, "context gating"),
    (32.6, "mixture of experts"),
  ):
    _stage(axes, colours, column.middle + x, text)
  bottom = _ROWS[5] - _BOX_HEIGHT / 2
  left = column.middle - 32.6
  column.line((left, bottom), (left, 12.8))
  for x in (-32.6, 0.0):
    start = column.middle + x + 15.0
    column.line((start, 10.5), (start + 2.6, 10.5))
  right = column.middle + 32.6
  column.line((right, 8.2), (right, 5.2))
  axes.text(
    right,
    3.6,
    "probability of each class",
    size=7.5,
    color=colours.text,
    ha="center",
    va="center",
  )
  axes.text(
    1.1,
    3.6,
    "T frames, D features, K and K' centres, P projected features. "
    "Blue: what the paper adds to NetVLAD.",
    size=7.0,
    color=colours.faint,
    ha="left",
    va="center",
  )


def draw(path: pathlib.Path, colours: Colours) -> None:
  """Writes one version."""
  figure = pyplot.figure(figsize=(8.0, 8.0 * _HEIGHT / _WIDTH))
  axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
  axes.set_xlim(0.0, _WIDTH)
  axes.set_ylim(0.0, _HEIGHT)
  axes.axis("off")
  for number, architecture in enumerate(
    (_netvlad, _attention_enhanced, _attention, _second_order)
  ):
    architecture(Column(axes, colours, number))
  _tail(axes, colours)
  figure.savefig(path, transparent=True, metadata={"Date": None})
  pyplot.close(figure)


def main(directory: pathlib.Path) -> None:
  """Writes both versions."""
  # Text stays text: small, and in the reader's own font.
  matplotlib.rcParams.update(
    {"svg.fonttype": "none", "svg.hashsalt": "architectures"}
  )
  for name, colours in _VERSIONS.items():
    draw(directory / f"architectures-{name}.svg", colours)


if __name__ == "__main__":
  here = pathlib.Path(__file__).resolve().parent
  main(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here)
