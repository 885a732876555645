"""Tests of training/augmentation.py.

Axes: B videos, N frames of the whole batch, D features, C classes.
"""

import math

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import losses
from models import base
from tests import runs
from training import augmentation, placement, towers

C = 4
LENGTHS = (5, 0, 3, 1)
SHARE = np.float32([0.7, 0.5, 0.25, 0.6])
PARTNER = np.int32([2, 0, 1, 3])


def _frames(lengths=LENGTHS, has_weights=False):
  """A batch of frames; each holds its video and its place in it."""
  rng = np.random.default_rng(0)
  frames = [
    [video, place] for video, n in enumerate(lengths) for place in range(n)
  ]
  batch = {
    "features": np.array(frames, np.int32).reshape([-1, 2]),
    "num_frames": np.array(lengths, np.int32),
    "labels": rng.random([len(lengths), C]) < 0.5,
  }
  if has_weights:
    weights = rng.choice(np.float32([0, 0.5, 1]), [len(lengths), C])
    batch["label_weights"] = weights
  return batch


def _run(function, batch, *args, seed=1):
  """Runs a function of a batch, of unknown sizes as a reader gives it."""
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(seed)
    tensors = {
      name: tf.placeholder_with_default(value, [None, *value.shape[1:]])
      for name, value in batch.items()
    }
    return session.run(function(tensors, *args))


def _mix(batch, share=SHARE, partner=PARTNER, is_frame_level=True):
  return _run(augmentation.mix, batch, share, partner, is_frame_level)


def test_mixes_bags_of_frames_and_labels_by_the_frames_that_each_gave():
  batch = _frames()
  found = _mix(batch)
  frames, start = found["features"].tolist(), 0
  for i, (share, j) in enumerate(zip(SHARE, PARTNER)):
    first = math.ceil(float(share) * LENGTHS[i])
    second = math.floor((1 - float(share)) * LENGTHS[j])
    expected = [[i, k * LENGTHS[i] // first] for k in range(first)]
    expected += [[j, k * LENGTHS[j] // second] for k in range(second)]
    assert found["num_frames"][i] == len(expected)
    assert frames[start : start + len(expected)] == expected
    start += len(expected)
    given = first / len(expected) if expected else 1.0
    np.testing.assert_allclose(
      found["labels"][i],
      given * batch["labels"][i] + (1 - given) * batch["labels"][j],
      rtol=1e-6,
    )
  assert start == len(frames)


def test_mixes_vectors_and_labels_by_the_equation():
  rng = np.random.default_rng(0)
  batch = {
    **_frames([1] * 4),
    "features": rng.normal(size=[4, 3]).astype(np.float32),
  }
  found = _mix(batch, is_frame_level=False)
  for name in ("features", "labels"):
    for i, j in enumerate(PARTNER):
      expected = SHARE[i] * batch[name][i] + (1 - SHARE[i]) * batch[name][j]
      np.testing.assert_allclose(found[name][i], expected, rtol=1e-6)
  np.testing.assert_array_equal(found["num_frames"], batch["num_frames"])


def test_ratings_are_mixed_so_that_losses_are():
  batch = _frames([4, 4, 4, 4], has_weights=True)
  share = np.float32([0.5, 0.25, 0.75, 1.0])
  found = _mix(batch, share)
  labels, weights = batch["labels"], batch["label_weights"]
  for yes in (True, False):  # What a loss multiplies with y, and with 1 - y.

    def terms(labels, weights, yes=yes):
      return weights * (labels if yes else 1 - labels)

    for i, j in enumerate(PARTNER):
      own = terms(1.0 * labels[i], weights[i])
      others = terms(1.0 * labels[j], weights[j])
      np.testing.assert_allclose(
        terms(found["labels"][i], found["label_weights"][i]),
        share[i] * own + (1 - share[i]) * others,
        atol=1e-6,
      )


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0), (1, 1), (0, 2)])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_video_keeps_a_frame_if_it_has_one(lengths, share):
  size = len(lengths)
  batch = _frames(lengths)
  partner = np.arange(size, dtype=np.int32)[::-1].copy()
  found = _mix(batch, np.full(size, share, np.float32), partner)
  assert found["features"].shape == (sum(found["num_frames"]), 2)
  assert found["labels"].shape == (size, C)
  for i in range(size):
    if share and lengths[i]:
      assert found["num_frames"][i]
    if not found["num_frames"][i]:
      np.testing.assert_array_equal(found["labels"][i], batch["labels"][i])


def test_drops_frames_of_low_draws_but_for_the_highest_of_a_video():
  draws = np.float32([0.9, 0.4, 0.6, 0.5, 0.1, 0.2, 0.3, 0.1, 0.45])
  found = _run(augmentation.drop_frames, _frames(), draws, 0.5)
  assert found["features"].tolist() == [[0, 0], [0, 2], [0, 3], [2, 1], [3, 0]]
  assert found["num_frames"].tolist() == [3, 0, 1, 1]


@pytest.mark.parametrize("lengths", [(), (0, 0)])
def test_drops_nothing_of_nothing(lengths):
  found = _run(augmentation.drop_frames, _frames(lengths), np.float32([]), 0.5)
  assert found["num_frames"].tolist() == [0] * len(lengths)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 3.0])
def test_shares_are_of_the_beta_distribution(alpha):
  found = _run(lambda _: augmentation.beta(100_000, alpha), {})
  assert np.all((found >= 0) & (found <= 1))
  variance = 1 / (4 * (2 * alpha + 1))
  # Five standard deviations of the mean of so many.
  assert abs(found.mean() - 0.5) < 5 * (variance / 100_000) ** 0.5
  assert found.var() == pytest.approx(variance, rel=0.03)


def test_drops_the_share_that_it_is_told_of_each_video():
  lengths = [4000, 1, 6000]
  changes = augmentation.Augmentation(frame_dropout=0.3)
  found = _run(changes.apply, _frames(lengths))["num_frames"]
  np.testing.assert_allclose(found, [2800, 1, 4200], rtol=0.05)


def test_the_seed_decides_and_nothing_is_done_unasked():
  batch = _frames([9] * 6)
  changes = augmentation.Augmentation(mixup_alpha=0.4, frame_dropout=0.3)
  one, same, other = (_run(changes.apply, batch, seed=s) for s in (1, 1, 2))
  np.testing.assert_array_equal(one["features"], same["features"])
  np.testing.assert_array_equal(one["labels"], same["labels"])
  assert one["features"].tolist() != other["features"].tolist()
  plain = _run(augmentation.Augmentation().apply, batch)
  for name, value in batch.items():
    np.testing.assert_array_equal(plain[name], value)
  video = augmentation.Augmentation(frame_dropout=0.3, is_frame_level=False)
  assert len(_run(video.apply, batch)["features"]) == 54


class CountingModel(base.BaseModel):
  """Predicts by the number of frames."""

  def scale_input(self, features, num_frames, is_training):
    return features, num_frames

  def create_model(self, model_input, vocab_size, num_frames=None, **unused):
    table = tf.get_variable("table", [10, vocab_size])
    return {"predictions": tf.sigmoid(tf.gather(table, num_frames))}


def test_towers_change_what_the_model_sees():
  devices = placement.devices(placement.from_environment("{}"), 0, 2)
  with tf.Graph().as_default(), tf.Session() as session:
    batch = {
      name: tf.constant(value) for name, value in _frames([9] * 5).items()
    }
    devices = devices._replace(towers=["/cpu:0"] * 2)
    changes = augmentation.Augmentation(mixup_alpha=1.0, frame_dropout=0.999999)
    parts = towers.split_batch(batch, 2)
    result = towers.build(
      towers.prepare(parts, devices, changes, num_classes=C),
      CountingModel(),
      towers.Objective(losses.get_loss("CrossEntropyLoss")),
      devices,
      num_classes=C,
    )
    session.run(tf.global_variables_initializer())
    predictions, table = session.run(
      (result.predictions, tf.sigmoid(tf.trainable_variables()[0]))
    )
  np.testing.assert_allclose(predictions, np.tile(table[1], [5, 1]), rtol=1e-5)


def test_mixes_what_is_stored_of_teachers_where_both_videos_have_it():
  batch = _frames()
  teacher = np.random.default_rng(1).random([len(LENGTHS), C], np.float32)
  batch |= {"teacher": teacher, "has_teacher": np.array([1, 1, 0, 1], bool)}
  batch["features"] = batch["features"][:4].astype(np.float32)
  found = _mix(batch, is_frame_level=False)
  for i, (share, j) in enumerate(zip(SHARE, PARTNER)):
    expected = share * teacher[i] + (1 - share) * teacher[j]
    np.testing.assert_allclose(found["teacher"][i], expected, rtol=1e-5)
  assert found["has_teacher"].tolist() == [False, True, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["FrameLevelLogisticModel", "LogisticModel"])
def test_trains(tmp_path, model):
  level, dropout = {}, {"frame_dropout": 0.5}
  if model == "LogisticModel":
    level, dropout = runs.VIDEO_LEVEL, {}
  pattern = runs.write_data(
    tmp_path / "data", level="video" if level else "frame"
  )
  common = {"model": model, "mixup_alpha": 0.4, **level}
  runs.run_train(tmp_path / "model", pattern, max_steps=2, **common, **dropout)
  assert runs.step_of(tmp_path / "model") == 2
  if level:
    with pytest.raises(ValueError, match="--frame_dropout=0.5 needs a frame"):
      runs.run_train(tmp_path / "no", pattern, frame_dropout=0.5, **common)
