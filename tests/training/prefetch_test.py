"""Tests of training/prefetch.py."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tests import runs
from training import placement, prefetch


@pytest.fixture
def ahead(monkeypatch):
  """Trainings put batches a step ahead, though there is no GPU."""
  devices = placement.devices
  monkeypatch.setattr(
    placement,
    "devices",
    lambda *args: devices(*args)._replace(prefetches=True),
  )


def test_a_step_has_what_the_step_before_has_put_there():
  with tf.Graph().as_default(), tf.Session() as session:
    data = tf.data.Dataset.range(3).map(
      lambda n: {
        "features": tf.fill([n, 2], tf.cast(n, tf.uint8)),
        "num_frames": tf.fill([n], 1),
        "epoch": n,
        "video_ids": tf.fill([n], "text"),
      }
    )
    iterator = tf.data.make_initializable_iterator(prefetch.with_last(data))
    parts, fill = prefetch.one_ahead(
      [iterator.get_next()] * 2, ["/cpu:0"] * 2, "/cpu:0"
    )
    session.run(iterator.initializer)
    session.run(fill)
    found = []
    with pytest.raises(tf.errors.OutOfRangeError):
      while True:
        found.append(session.run((parts, fill))[0])
  assert parts[0]["features"].shape.as_list() == [None, 2]
  assert len(found) == 3
  for n, both in enumerate(found):
    for part in both:
      assert sorted(part) == ["epoch", "features", "num_frames"]
      assert part["epoch"] == n
      np.testing.assert_array_equal(part["features"], np.full([n, 2], n))
      assert part["num_frames"].tolist() == [1] * n


@pytest.mark.slow
def test_training_takes_each_batch_once_and_ends(ahead, tmp_path):
  pattern = runs.write_data(tmp_path / "data", num_videos=10)
  runs.run_train(
    tmp_path / "run", pattern, num_epochs=1, batch_size=2, num_towers=2
  )
  losses = runs.events(tmp_path / "run")["label_loss"]
  assert sorted(losses) == [1, 2, 3]  # Of 4, 4 and 2 videos.
  assert all(0 < loss < 100 for loss in losses.values())
