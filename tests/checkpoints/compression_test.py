"""Tests of checkpoints/compression.py, and of exports with it.

Axes: N numbers of a column, M columns.
"""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import eval_util
import export_model
import model_flags
import readers
from checkpoints import compression, restore
from predictions import predictor
from tests import runs


def _decoded(codes, low, step):
  return low + step * codes.astype(np.float64)


@pytest.mark.parametrize(
  ("shape", "range_shape"),
  [([64, 5], [5]), ([63, 5], []), ([2, 32, 5], [5]), ([2, 31, 5], [])],
)
def test_codes_are_the_nearest_of_256_over_the_range(shape, range_shape):
  scales = np.array([1e-6, 1.0, 3.0, 1e4, 0.1])
  values = np.random.default_rng(0).normal(size=shape) * scales
  values = values.astype(np.float32)
  codes, low, step = compression.quantize(values)
  assert codes.dtype == np.uint8 and codes.shape == tuple(shape)
  assert low.shape == step.shape == tuple(range_shape)
  error = np.abs(_decoded(codes, low, step) - values)
  assert np.all(error <= 0.5001 * step)
  assert codes.min() == 0 and codes.max() == 255


@pytest.mark.parametrize("value", [0.0, -3.25])
def test_equal_numbers_are_exact(value):
  values = np.full([100, 3], value, np.float32)
  codes, low, step = compression.quantize(values)
  np.testing.assert_array_equal(_decoded(codes, low, step), values)


def _build(storage):
  """Variables of all kinds, as layers make them: their sum by name."""
  with tf.variable_scope("tower", custom_getter=storage.getter):
    return {
      "weights": tf.get_variable("weights", [130, 127]) + 0.0,
      "edge": tf.get_variable("edge", [128, 128]) + 0.0,
      "bias": tf.get_variable("bias", [20_000]) + 0.0,
      "statistics": tf.get_variable("statistics", [130, 127], trainable=False)
      + 0.0,
      "counts": tf.get_variable(
        "counts", [130, 127], tf.int32, tf.zeros_initializer()
      )
      + 0,
    }


@pytest.mark.parametrize(
  ("dtype", "num_bytes", "error"),
  [
    ("float32", 4 * 130 * 127, 0.0),
    ("float16", 2 * 130 * 127, 1e-3),
    # A byte a number, and two floats a column.
    ("uint8", 130 * 127 + 8 * 127, 0.02),
  ],
)
def test_large_weights_alone_are_small(dtype, num_bytes, error):
  rng = np.random.default_rng(0)
  storage = compression.Compression(dtype)
  with tf.Graph().as_default(), tf.Session() as session:
    built = _build(storage)
    weights = {
      f"tower/{name}": rng.normal(size=tensor.shape).astype(
        tensor.dtype.as_numpy_dtype
      )
      for name, tensor in built.items()
    }
    storage.load(weights, session)
    found = session.run(built)
  for name, value in found.items():
    expected = weights[f"tower/{name}"]
    assert value.dtype == expected.dtype
    allowed = error if name == "weights" else 0.0
    np.testing.assert_allclose(value, expected, rtol=0, atol=4 * allowed)
  others = 4 * (128 * 128 + 20_000 + 2 * 130 * 127)
  assert storage.num_bytes == num_bytes + others
  assert storage.count == (dtype != "float32")


def test_what_float16_can_not_hold_is_told():
  storage = compression.Compression("float16")
  with tf.Graph().as_default(), tf.Session() as session:
    with tf.variable_scope("tower", custom_getter=storage.getter):
      tf.get_variable("weights", [130, 127])
    with pytest.raises(ValueError, match="tower/weights has .* up to 70000"):
      weights = {"tower/weights": np.full([130, 127], 7e4, np.float32)}
      storage.load(weights, session)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """(train_dir, its model flags, serialised records, labels)."""
  root = tmp_path_factory.mktemp("compression")
  pattern = runs.write_data(root / "data", num_videos=24)
  directory = str(root / "model")
  runs.run_train(
    directory,
    pattern,
    max_steps=40,
    batch_size=12,
    base_learning_rate=0.02,
    netvlad_cluster_size="8",
    netvlad_hidden_size=64,
    gating=True,
  )
  records = [
    record
    for path in readers.expand_data_pattern(pattern)
    for record in tf.python_io.tf_record_iterator(path)
  ]
  labels = np.zeros([len(records), runs.NUM_CLASSES], bool)
  for row, own in zip(labels, runs.labels_of(pattern).values()):
    row[list(own)] = True
  return directory, model_flags.load(directory), records, labels


def _served(directory, records):
  """[B, C] of a SavedModel, in a graph of its own."""
  with tf.Graph().as_default(), tf.Session() as session:
    loaded = tf.saved_model.load(session, ["serve"], directory)
    signature = loaded.signature_def["serving_default"]
    classes, scores = session.run(
      [signature.outputs[k].name for k in ("class_indexes", "predictions")],
      {signature.inputs["example_bytes"].name: records},
    )
  found = np.zeros_like(scores)
  np.put_along_axis(found, classes, scores, axis=1)
  return found


@pytest.mark.slow
def test_exports_are_small_and_predict_alike(trained, tmp_path, monkeypatch):
  monkeypatch.setattr(compression, "_MIN_ELEMENTS", 400)
  directory, values, records, labels = trained
  found, sizes = {}, {}
  for dtype in compression.DTYPES:
    output_dir = str(tmp_path / dtype)
    predictor.export(
      restore.latest_checkpoint(directory), values, output_dir, 99, dtype
    )
    found[dtype] = _served(output_dir, records)
    sizes[dtype] = sum(
      os.path.getsize(os.path.join(output_dir, "variables", name))
      for name in os.listdir(os.path.join(output_dir, "variables"))
    )
  gap = {
    dtype: eval_util.calculate_gap(predictions, labels)
    for dtype, predictions in found.items()
  }
  assert gap["float32"] > 0.8
  for dtype, ratio, error in (("float16", 0.6, 1e-2), ("uint8", 0.4, 5e-2)):
    assert sizes[dtype] < ratio * sizes["float32"], sizes
    assert 0 < np.abs(found[dtype] - found["float32"]).max() < error
    assert gap[dtype] == pytest.approx(gap["float32"], abs=0.01)


@pytest.mark.slow
def test_the_program_has_the_flag(trained, tmp_path):
  said = runs.run_ok(
    "export_model.py",
    f"--train_dir={trained[0]}",
    f"--output_dir={tmp_path / 'served'}",
    "--export_dtype=uint8",
  )
  assert "--export_dtype=uint8: 0 large weights are smaller" in said
  with pytest.raises(ValueError, match="--export_dtype needs one of float32"):
    export_model.Config(export_dtype="int4")
