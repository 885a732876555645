"""Tests of report.py: its page, and TensorBoard's, as a browser shows them."""

import csv
import html.parser
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import report
from checkpoints import evaluations, events
from evaluation import pictures
from reporting import run_data
from tests import runs
from training import config
from training import log as train_log

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_RUNS = {"first": "NetVLADModelLF", "second": "DbofModel"}


def _write_run(directory, model, gap):
  """Writes what train.py and eval.py leave, without a training."""
  values = runs.model_values(model=model)
  writing = tf.Graph().as_default()  # Writers refuse to exist in eager mode.
  with writing:
    writer = events.EventWriter(str(directory))
  train_log.write_flags(
    writer,
    config.Config(train_data_pattern="/data/a*"),
    values,
    ["python", "train.py", f"--model={model}", "--x=a b"],
  )
  log = train_log.TrainLog(
    writer=writer, num_classes=3, start_step=0, total_steps=20
  )
  for step in (10, 20):
    log.report(step, 0.5, None, None, {})
    writer.add_summary(events.scalar_summary(events.common({"GAP": 0.9})), step)
  writer.close()
  (directory / "model_flags.json").write_text(json.dumps(values))
  seen = pictures.Look(
    [
      pictures.Example(
        "<id>&",
        3,
        ["a|b"],
        [("a|b", 0.75), ("<c>", 0.25)],
        [
          pictures.Map(
            "netvlad_rgb", "assignments", *pictures._pictures([np.eye(3)])
          )
        ],
      )
    ],
    {"netvlad_rgb": np.array([0.5, 0.5])},
  )
  own = directory / "eval"
  for step, better in ((10, 0.0), (20, -0.1)):
    results = {
      "step": step, "gap": gap + better, "map": 0.25, "avg_hit_at_one": 0.5,
      "avg_perr": 0.125, "avg_loss": 2.0, "num_videos": 7, "segments": False,
      "flawed_records": {},
    }  # fmt: skip
    evaluations.write(results, str(own), "", pictures.summary(seen))
    pictures.write(str(own / f"examples-{step}.json"), seen)
    with open(own / f"classes-{step}.csv", "w", newline="") as stream:
      rows = [("index", "name"), (0, "<c>"), (1, "a|b"), (2, f"at {step}")]
      csv.writer(stream).writerows(rows)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
  directory = tmp_path_factory.mktemp("runs")
  for (name, model), gap in zip(_RUNS.items(), (0.75, 0.625)):
    _write_run(directory / name, model, gap)
  return directory


@pytest.fixture(scope="module")
def page(logdir):
  """The path of the page of both runs."""
  path = logdir / "report.html"
  found = report.find(f"{logdir}/first,{logdir}/*")
  assert found == [str(logdir / name) for name in _RUNS]
  report.write(found, str(path))
  return path


class _Page(html.parser.HTMLParser):
  """What a page asks others for, and what stands in it."""

  def __init__(self, text):
    super().__init__()
    self.asks, self.tags, self.said = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    for name, value in attrs:
      if name in ("src", "href", "xlink:href", "action"):
        self.asks.append(value)

  def handle_data(self, data):
    self.said.append(data)


def test_a_page_shows_the_runs_and_asks_nobody(page):
  found = _Page(page.read_text())
  said = "".join(found.said)
  assert not [a for a in found.asks if not a.startswith(("#", "data:"))]
  # The table of runs, with the step of the best GAP; curves of GAP, MAP, Hit@1,
  # PERR and loss; what was seen, its markup harmless; tables of the best step.
  for text in ("0.7500", "0.6250", "<id>&", "<c>", "at 10", "'--x=a b'"):
    assert text in said, text
  assert "at 20" not in said
  assert "second" in said and "DbofModel" in said
  assert found.tags.count("svg") == 5
  assert found.tags.count("img") == 2


def test_runs_are_named_by_what_tells_them_apart():
  assert run_data.names(["/a/b/", "/a/c"]) == ["b", "c"]
  assert run_data.names(["/a/b/x/t", "/a/c/x/t"]) == ["b", "c"]
  assert run_data.names(["/a/x/y", "/b/x/y", "/b/x/z"]) == [
    "a/x/y", "b/x/y", "b/x/z",
  ]  # fmt: skip


def test_a_path_without_a_run_is_named(tmp_path):
  with pytest.raises(ValueError, match=f"--train_dir={tmp_path}: no train_dir"):
    report.find(str(tmp_path))


# In a browser.

needs_chromium = pytest.mark.skipif(
  not _CHROMIUM, reason="No chromium on the PATH."
)


def _dom(address, directory):
  """The document that a browser makes of an address, after its scripts ran."""
  return subprocess.run(
    [
      _CHROMIUM,
      "--headless=new",
      "--no-sandbox",  # Containers' root has none.
      "--disable-gpu",
      "--virtual-time-budget=20000",
      "--window-size=1500,4000",
      f"--user-data-dir={directory}",
      "--dump-dom",
      address,
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    timeout=120,
    check=True,
    text=True,
  ).stdout


@needs_chromium
@pytest.mark.slow
def test_a_browser_sorts_the_page_s_tables(page, tmp_path):
  clicking = tmp_path / "clicking.html"
  script = (
    "<script>document.querySelectorAll('th.sort')[2].click();"
    "document.querySelectorAll('th.sort')[2].click();</script></body>"
  )
  clicking.write_text(page.read_text().replace("</body>", script))
  found = _dom(clicking.as_uri(), tmp_path / "profile")
  # By GAP, the lowest first.
  body = found[found.index("<tbody>") : found.index("</tbody>")]
  assert body.index("0.6250") < body.index("0.7500")


@pytest.fixture
def board(logdir, tmp_path):
  """The address of a TensorBoard over both runs."""
  with socket.socket() as found:
    found.bind(("localhost", 0))
    port = found.getsockname()[1]
  command = [
    sys.executable, "-m", "tensorboard.main", f"--logdir={logdir}",
    f"--port={port}", "--load_fast=false",
  ]  # fmt: skip
  with open(tmp_path / "log", "w") as log:
    process = subprocess.Popen(
      command, stdout=log, stderr=log, env={**os.environ, "HOME": str(tmp_path)}
    )
  address = f"http://localhost:{port}"
  try:
    # Until all runs are read.
    for _ in range(600):
      try:
        with urllib.request.urlopen(f"{address}/data/runs") as reply:
          if len(json.load(reply)) == 2 * len(_RUNS):
            break
      except OSError:
        pass
      time.sleep(0.1)
    else:
      raise AssertionError((tmp_path / "log").read_text())
    yield address
  finally:
    process.terminate()
    process.wait()


@needs_chromium
@pytest.mark.slow
def test_tensorboard_shows_both_runs_in_the_same_charts(board, tmp_path):
  with urllib.request.urlopen(f"{board}/data/plugin/scalars/tags") as reply:
    tags = json.load(reply)
  for name in _RUNS:
    # A chart is a tag: training and evaluation share these.
    assert {"GAP", "loss"} <= {*tags[name]} & {*tags[f"{name}/eval"]}
  shown = "".join(_Page(_dom(f"{board}/#timeseries", tmp_path)).said)
  for text in ("GAP", "MAP", "Hit@1", "PERR", "loss", "first", "second/eval"):
    assert text in shown, text

  # HParams, by what its page asks the server for.
  asked = {
    "allowedStatuses": ["STATUS_UNKNOWN"],
    "colParams": [{"hparam": "model"}],
    "startIndex": 0,
    "sliceSize": 10,
  }
  request = urllib.request.Request(
    f"{board}/data/plugin/hparams/session_groups",
    json.dumps(asked).encode(),
    {"Content-Type": "application/json"},
  )
  with urllib.request.urlopen(request) as reply:
    groups = json.load(reply)["sessionGroups"]
  assert {g["name"]: g["hparams"]["model"] for g in groups} == _RUNS
  for group in groups:
    metrics = [
      value["value"]
      for value in group["metricValues"]
      if value["name"] == {"group": "eval", "tag": "GAP"}
    ]
    assert len(metrics) == 1
