"""The page of `report.py`: HTML by jinja2, curves by matplotlib."""

import io
import pathlib
import re
from typing import Any

import jinja2
import matplotlib
from matplotlib import figure

from reporting import run_data

_TEMPLATE = pathlib.Path(__file__).with_name("page.html")
# Text stays text, and the same page comes of the same runs.
_SVG = {"svg.fonttype": "none", "svg.hashsalt": "learnable-pooling"}


def render(runs: list[run_data.Run]) -> str:
  """The page of some runs: HTML that asks no server for anything."""
  environment = jinja2.Environment(
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
  charts = [(tag, _chart(tag, runs)) for tag in run_data.TAGS]
  return template.render(
    runs=runs,
    title=", ".join(run.name for run in runs[:3]) + ", ..." * (len(runs) > 3),
    charts=[(tag, chart) for tag, chart in charts if chart],
  )


def _chart(tag: str, runs: list[run_data.Run]) -> str:
  """The SVG of a tag's curves; "" without any.

  A run has one colour; training is thin, evaluation thick with points.
  """
  drawn = figure.Figure(figsize=(5.2, 3.2), layout="constrained")
  axes = drawn.add_subplot()
  styles: dict[str, dict[str, Any]] = {
    "train": {"linewidth": 0.8, "alpha": 0.6},
    "eval": {"linewidth": 1.8, "marker": "o", "markersize": 3},
  }
  for number, run in enumerate(runs):
    for kind, points in run.curves.get(tag, {}).items():
      label = kind if len(runs) == 1 else f"{run.name} {kind}"
      steps, values = zip(*points)
      axes.plot(
        steps, values, color=f"C{number % 10}", label=label, **styles[kind]
      )
  if not axes.lines:
    return ""
  axes.set_title(tag)
  axes.set_xlabel("step")
  axes.grid(alpha=0.3)
  if len(axes.lines) <= 12:
    axes.legend(fontsize="small")
  stream = io.StringIO()
  with matplotlib.rc_context(_SVG):
    drawn.savefig(stream, format="svg", metadata={"Date": None})
  text = stream.getvalue()
  # From the element on: what stands before it is not for a page of HTML.
  text = text[text.index("<svg") :]
  # Several pictures in a page would share the names of their parts.
  prefix = re.sub(r"\W", "", tag)
  return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
