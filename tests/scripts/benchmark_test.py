"""Tests of scripts/benchmark.py, its cases and what they are compared with."""

import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
import readers
from console import program
from pooling import frame_sampling
from scripts import baselines, benchmark, benchmark_cases, measuring, sizes
from tests import layers, runs

FAST = "FrameLevelLogisticModel"
# Rounding of sums in another order.
RTOL = 1e-4
TINY = {
  "feature_sizes": "32,16",
  "num_classes": 30,
  "batch_size": 4,
  "clusters": 4,
  "hidden_size": 8,
  "frames": 3,
  "max_frames": 9,
  "num_videos": 17,
  "seconds": 0.0,
}
# What has its own defaults there.
_FEW_UNITS = {
  "dbof_cluster_size": 8,
  "dbof_hidden_size": 8,
  "lstm_cells": 8,
  "gru_cells": 8,
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
  """Tiny sizes, with the records of both levels."""
  directory = tmp_path_factory.mktemp("data")
  config = benchmark.Config(data_dir=str(directory), **TINY)
  sizes.make_data(config)
  return config


@pytest.mark.parametrize("name", baselines.POOLINGS)
def test_a_plain_pooling_sees_real_frames_and_has_our_parameters(
  settings, name
):
  given = {**sizes.train_flags(settings, name), **_FEW_UNITS}
  *_, values = measuring.make_trainer(given)
  model, found = model_flags.build_model(values), []
  frames = np.random.RandomState(0).randn(3, 4, 48).astype(np.float32)
  for each in (model, baselines.plain_model(model)):
    with tf.Graph().as_default(), tf.Session() as session:
      shown = tf.placeholder(tf.float32, [3, 4, 48])
      predictions = each.create_model(
        shown, 30, num_frames=tf.constant([4, 2, 0]), is_training=False
      )["predictions"]
      layers.randomize(session)
      seen = session.run(predictions, {shown: frames})
      frames[1, 2:] = frames[2] = 7.0
      np.testing.assert_allclose(
        session.run(predictions, {shown: frames}), seen, rtol=1e-5
      )
      weights = tf.trainable_variables()
      found.append(sum(v.shape.num_elements() for v in weights))
  if name in ("NetVLADModelLF", "NeXtVLADModel"):  # As published.
    assert found[0] == found[1]


def _by_id(batches):
  """{id: (features, number of frames, labels)} of a dataset."""
  found = {}
  with tf.Session() as session:
    iterator = tf.data.make_initializable_iterator(batches)
    session.run(iterator.initializer)
    batches = iterator.get_next()
    while True:
      try:
        values = session.run(batches)
      except tf.errors.OutOfRangeError:
        return found
      names = ("features", "num_frames", "labels")
      rows = zip(*(values[name] for name in names))
      found.update(zip(values["video_ids"], rows))


def test_the_baseline_reads_what_our_reader_does(settings):
  own = {
    "feature_names": ["rgb", "audio"],
    "feature_sizes": [32, 16],
    "num_classes": 30,
    "max_frames": 8,  # Cuts the longest.
  }
  paths = settings.paths("frame")
  with tf.Graph().as_default():
    records = baselines.Records(paths, **own)
    plain = _by_id(
      baselines.plain_batches(
        records, batch_size=5, num_readers=3, num_epochs=1
      )
    )
  with tf.Graph().as_default():
    reader = readers.YT8MFrameFeatureReader(**own)

    def dequantized(batch):
      floats = frame_sampling.dequantize(batch["features"])
      return {**batch, "features": floats[tf.newaxis]}

    ours = _by_id(reader.batches(paths, batch_size=1).map(dequantized))
  assert len(ours) == 17 and set(plain) == set(ours)
  for video_id, (features, num_frames, labels) in ours.items():
    plain_features, plain_frames, plain_labels = plain[video_id]
    assert plain_frames == num_frames
    np.testing.assert_array_equal(plain_labels, labels)
    layers.assert_close(plain_features[:num_frames], features, rtol=RTOL)
    assert not plain_features[num_frames:].any()


@pytest.mark.slow
class TestMeasuring:
  def test_the_reader_is_measured_against_another(self, settings, monkeypatch):
    monkeypatch.setattr(benchmark_cases, "_READ_BATCHES", 2)
    rows = benchmark_cases.read(settings)
    assert list(rows) == ["ours", "plain tf.data"]
    assert all(min(row.values()) > 0 for row in rows.values())
    assert rows["plain tf.data"]["speedup"] == 1.0

  @pytest.mark.parametrize("name", ["MoeModel", "NetVLADModelLF"])
  def test_a_step_is_measured(self, settings, name):
    (row,) = benchmark_cases.step(settings, name).values()
    assert min(row.values()) > 0
    num_videos = 64 * 4 if name == "MoeModel" else 4
    assert row["examples_per_second"] == pytest.approx(
      num_videos * 1e3 / row["step_ms"]
    )
    assert ("speedup" in row) == (name != "MoeModel")

  def test_a_plain_step_that_finds_no_memory_is_left_out(
    self, settings, monkeypatch
  ):
    def exhaust():
      # To the session it is what an allocator says after ten seconds.
      raise MemoryError

    def residuals(model, frames, mask, name, mode):
      del model, mask, name, mode
      with tf.control_dependencies([tf.numpy_function(exhaust, [], [])]):
        return tf.identity(frames[:, 0])

    monkeypatch.setitem(baselines.POOLINGS, "NetVLADModelLF", residuals)
    (row,) = benchmark_cases.step(settings, "NetVLADModelLF").values()
    assert row["memory_step_ms"] > 0
    assert not {"plain_step_ms", "speedup"} & set(row)

  def test_towers_share_a_batch(self, settings):
    # Of two videos: four towers would have some without.
    rows = benchmark_cases.towers(dataclasses.replace(settings, batch_size=2))
    assert list(rows) == ["1 towers", "2 towers"]
    assert rows["1 towers"]["tower_overhead"] == 0.0

  def test_metrics_are_measured(self, settings, monkeypatch):
    monkeypatch.setattr(benchmark_cases, "_METRICS_BATCHES", 2)
    (row,) = benchmark_cases.metrics(settings).values()
    assert row["videos_per_second"] > 0

  def test_inference_is_measured_against_the_model(self, settings, monkeypatch):
    monkeypatch.setattr(benchmark_cases, "_INFERENCE_BATCH", 5)
    monkeypatch.setattr(benchmark_cases, "_INFERENCE_BATCHES", 4)
    (row,) = benchmark_cases.infer(settings, FAST).values()
    assert min(row.values()) > 0


class TestConfig:
  def test_all_models_have_a_step(self):
    rows = benchmark.Config().rows()
    assert {case for case, _ in rows} == set(benchmark._CASES)
    models = [model for case, model in rows if case == "step"]
    assert set(models) == {
      *model_flags.model_names(),
      "gated-netvlad",
      "gated-netvlad-256",
      "nextvlad-128",
    }

  def test_every_row_has_flags_of_train_py(self, settings):
    for _, model in settings.rows():
      if model:
        given = sizes.train_flags(settings, model)
        *_, values = measuring.make_trainer(given)
        assert values["num_classes"] == 30

  def test_models_choose_rows(self):
    config = benchmark.Config(cases="step,input", models="MoeModel, DbofModel")
    assert config.rows() == [
      ("step", "MoeModel"),
      ("step", "DbofModel"),
      ("input", ""),
    ]

  @pytest.mark.parametrize(
    ("fields", "message"),
    [
      ({"cases": "input,speed"}, "--cases: there is no speed. Known are input"),
      ({"models": "NetVlad"}, "--models: there is no NetVlad. .*MoeModel"),
      ({"cases": ""}, "nothing to measure"),
      ({"new": "a.json"}, "--new needs --compare"),
      ({"feature_sizes": "1024"}, "rgb and audio"),
    ],
  )
  def test_what_cannot_be_measured_is_refused(self, fields, message):
    with pytest.raises(ValueError, match=message):
      benchmark.Config(**fields).rows()


def report(results, failures=None, **machine):
  return benchmark.Report(
    {"cpu": "a processor", "cores": 2, "gpus": [], **machine},
    {"seconds": 3},
    results,
    failures or {},
  )


class TestReport:
  def test_survives_its_file(self, tmp_path):
    written = report({"step": {"a": {"step_ms": 1.5}}}, {})
    path = str(tmp_path / "new" / "benchmark.json")
    written.write(path)
    assert vars(benchmark.Report.read(path)) == vars(written)

  @pytest.mark.parametrize("text", [None, "", "[1]", '{"rows": 1}'])
  def test_a_file_of_something_else_is_refused(self, tmp_path, text):
    path = tmp_path / "benchmark.json"
    if text is not None:
      path.write_text(text)
    with pytest.raises(program.UserError, match="no file of this program's"):
      benchmark.Report.read(str(path))

  def test_the_tables_have_all_figures_and_failures(self):
    text = report(
      {
        "step": {
          "a": {"examples_per_second": 12345.6, "step_ms": 1.25},
          "b": {"peak_gb": 0.00123},
        }
      },
      {"step": {"c": "status 1\nout of memory"}, "input": {"d": "stopped"}},
    ).text()
    assert text.startswith("Machine: cpu a processor, cores 2.\n")
    rows = [
      [cell.strip() for cell in line.strip("|").split("|")]
      for line in text.splitlines()
      if line.startswith("|") and "--" not in line
    ]
    assert rows == [
      ["", "examples per second", "step ms", "peak gb"],
      ["a", "12,346", "1.25", ""],
      ["b", "", "", "0.00123"],
      ["c: FAILED", "", "", ""],
      [""],
      ["d: FAILED"],
    ]
    assert "out of memory" in text and "stopped" in text

  @pytest.mark.parametrize(
    ("figure", "old", "new", "expected"),
    [
      ("step_ms", 100.0, 104.0, "same"),
      ("step_ms", 100.0, 106.0, "worse"),
      ("step_ms", 100.0, 94.0, "better"),
      ("videos_per_second", 100.0, 106.0, "better"),
      ("speedup", 2.0, 3.0, "better"),
      ("peak_gb", 2.0, 3.0, "worse"),
      ("tower_overhead", 0.0, 0.0, "same"),
    ],
  )
  def test_verdicts(self, figure, old, new, expected):
    assert benchmark.verdict(figure, old, new) == expected

  def test_a_comparison_shows_what_changed_and_what_is_missing(self):
    old = report({"step": {"a": {"step_ms": 10.0, "tower_overhead": 0.0}}})
    old.results["input"] = {"c": {"speedup": 2.0}}
    new = {"a": {"step_ms": 5.0, "tower_overhead": 1.0}, "b": {"step_ms": 1.0}}
    text = benchmark.compare(old, report({"step": new}, cpu="another"))
    cells = [
      [cell.strip() for cell in line.strip("|").split("|")]
      for line in text.splitlines()
      if line.startswith("| ")
    ]
    assert cells[2:] == [
      ["step", "a", "step_ms", "10", "5", "0.500", "better"],
      ["step", "a", "tower_overhead", "0", "1", "", "worse"],
    ]
    assert "in one file alone: input c, step b." in text
    assert "Another machine: cpu was a processor, is another." in text


@pytest.mark.slow
def test_the_program_reports_what_fails_goes_on_and_compares(
  settings, tmp_path
):
  old, new = str(tmp_path / "old.json"), str(tmp_path / "new.json")
  report({"metrics": {"metrics": {"videos_per_second": 7.0}}}).write(old)
  # The records have other sizes.
  given = {**TINY, "feature_sizes": "31,16", "cases": "input,metrics"}
  given |= {"data_dir": settings.data_dir, "output": new, "compare": old}
  status, stdout, stderr = runs.run_program(
    "scripts/benchmark.py", *runs.flag_list(given)
  )
  assert status == program.FAILED, stderr
  written = benchmark.Report.read(new)
  assert "--feature_sizes says 31" in written.failures["input"]["input"]
  assert len(written.results["metrics"]) == 1
  assert "input: FAILED" in stdout and "new/old" in stdout
  assert "| metrics | metrics | videos_per_second |" in stdout
