"""Tests of readers.py on frames that are stored as floats."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from models import base, frame_level
from records import writer
from tests import record_data as records
from tests.readers_test import SIZES, frame_reader, ids, read


def _frames(seed, count):
  rng = np.random.default_rng(seed)
  return {
    name: rng.normal(size=[count, size]).astype(np.float16).astype(np.float32)
    for name, size in SIZES.items()
  }


def _with(frames, **changes):
  """Frames in which one number is another."""
  frames = {name: values.copy() for name, values in frames.items()}
  for name, value in changes.items():
    frames[name][1, 2] = value
  return frames


@pytest.mark.parametrize("dtype", ["float16", "float32", "float_list"])
def test_floats_come_as_they_are_and_flaws_are_named(tmp_path, dtype):
  sound = [_frames(seed, count) for seed, count in ((0, 2), (1, 9), (2, 3))]
  sound[2]["audio"] = sound[2]["audio"][:2]  # Cut to the shortest.
  flawed = {
    "nan": _with(_frames(3, 4), rgb=np.nan),
    "inf": _with(_frames(4, 4), audio=-np.inf),
    "narrow": {**_frames(5, 4), "rgb": _frames(5, 4)["audio"]},
  }
  bytes_record = records.frame_record(
    b"bytes", [1], records.random_frames(np.random.default_rng(0), 2, SIZES)
  )
  path = records.write(
    tmp_path / "x.tfrecord",
    [
      *(
        writer.frame_record(name, frames, [1], dtype=dtype, check=False)
        for name, frames in (
          (b"0", sound[0]),
          (b"nan", flawed["nan"]),
          (b"1", sound[1]),
          (b"inf", flawed["inf"]),
          (b"narrow", flawed["narrow"]),
          (b"2", sound[2]),
        )
      ),
      bytes_record,
    ],
  )
  reader = frame_reader(feature_dtype=dtype, max_frames=6)
  batches = read(reader, [path], deterministic=True)
  assert ids(batches) == [b"0", b"1", b"2"]
  found = np.concatenate([batch["features"] for batch in batches])
  stored = np.float16 if dtype == "float16" else np.float32
  assert found.dtype == stored
  expected = [
    np.concatenate([frames[name][:count] for name in SIZES], axis=1)
    for frames, count in zip(sound, (2, 6, 2))
  ]
  np.testing.assert_array_equal(found, np.concatenate(expected))
  problems = "\n".join(reader.report.problems())
  counts = reader.report.counts()
  assert counts["not_finite"] == 2
  assert counts["unequal_lengths"] == 1
  assert "frame 1 of 'rgb' has 1 numbers of 5 that are not finite" in problems
  assert "the first -inf" in problems
  if dtype == "float_list":
    assert "frame 0 of 'rgb' has 3 floats, where --feature_sizes" in problems
    assert "wants 5 floats: uint8 numbers? Then give" in problems
  else:
    width = np.dtype(dtype).itemsize
    assert f"has [{3 * width}] bytes, where --feature_sizes and" in problems
    assert f"--feature_dtype={dtype} say {5 * width}" in problems
    assert "has [5] bytes" in problems and "--feature_dtype=uint8" in problems


def test_wider_numbers_than_bytes_name_their_dtype(tmp_path):
  rows = _frames(0, 2)
  for dtype in ("float16", "float32", "float_list"):
    record = writer.frame_record(b"x", rows, [1], dtype=dtype)
    path = records.write(tmp_path / f"{dtype}.tfrecord", [record])
    reader = frame_reader()
    assert not read(reader, [path])
    assert f"or give --feature_dtype={dtype}" in reader.report.problems()[0]


@pytest.mark.parametrize(
  "bounds", [((-2.0, 2.0),) * 2, ((-1.5, 3.25), (0.0, 10.0))]
)
def test_a_model_sees_of_bytes_what_their_ranges_say(bounds):
  features = [
    base.Feature(name, size, *pair)
    for (name, size), pair in zip(SIZES.items(), bounds)
  ]
  stored = records.random_frames(np.random.default_rng(0), 6, SIZES)
  floats = [
    writer.dequantize(stored[name].astype(np.float64), *pair)
    for name, pair in zip(SIZES, bounds)
  ]
  floats = np.concatenate(floats, axis=1)
  seen = []
  for values in (
    np.concatenate([stored[name] for name in SIZES], axis=1),
    floats.astype(np.float32),
  ):
    model = frame_level.FrameLevelLogisticModel(features=features)
    with tf.Graph().as_default(), tf.Session() as session:
      inputs, _ = model.prepare_input(
        tf.constant(values), tf.constant([4, 2]), is_training=False
      )
      seen.append(session.run(inputs)[0])
  expected = floats[:4] / np.linalg.norm(floats[:4], axis=1, keepdims=True)
  for found in seen:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_quantised_values_come_back_within_half_a_step():
  values = np.linspace(-1.5, 3.25, 40).reshape(8, 5)
  found = writer.dequantize(writer.quantize(values, -1.5, 3.25), -1.5, 3.25)
  # The formula's own offset makes the range's ends half a step less exact.
  np.testing.assert_allclose(found, values, atol=4.75 / 255)
