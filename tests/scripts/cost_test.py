"""Tests of scripts/cost.py."""

import dataclasses
import functools
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from scripts import cost, measuring

CHIP = cost.Chip({"float32": 2.0}, bandwidth=1000.0, link=20.0)


def _config(**changes):
  return cost.Config(
    videos=3.6e6, terabytes=1.0, gpu_batch=10, share_of_peak=0.5, cores=1,
    share_of_bandwidth=1.0, videos_per_core=1e6, storage_gb=1e3, **changes,
  )  # fmt: skip


def test_an_epoch_is_bounded_by_gpus_or_by_what_they_are_given():
  # 1 s of products and 0.5 s of memory a step, and 10 videos a second beyond.
  counted = cost.Counted(1e10, (5e11, 5e10), (1e11, 4e10))
  one = cost.epoch(_config(), counted, CHIP, 1)
  assert one.hours == pytest.approx(3.6e6 / 10 * (1.0 + 0.5) / 3600)
  assert (one.limit, one.rate) == ("GPU", pytest.approx(10 / 1.5))
  # A ring of two sends 10 GB at 10 GB/s each way.
  two = cost.epoch(_config(), counted, CHIP, 2)
  assert two.rate == pytest.approx(20 / 2.5)
  slow = cost.Config(
    videos=3.6e6, terabytes=1.0, gpu_batch=10, cores=2, videos_per_core=0.5
  )
  found = cost.epoch(slow, counted, CHIP, 1)
  assert (found.limit, found.hours) == ("cores", pytest.approx(1000.0))
  full = dataclasses.replace(slow, storage_gb=0.001, terabytes=10.0)
  found = cost.epoch(full, counted, CHIP, 1)
  assert (found.limit, found.hours) == ("storage", pytest.approx(1e4 / 3.6))
  assert "h (cores)" in cost.table(slow, {"m": counted})
  text = cost.table(_config(precision="tf32"), {"m": counted})
  assert len(text.splitlines()) == 2 + len(cost.CHIPS)
  config = dataclasses.replace(slow, storage_gb=2.0, videos_per_core=500.0)
  text = cost.told(config, {"m": counted})
  # Parameters, operations of a video and of an epoch, bytes of a step.
  assert "| m | 2500.0 | 50.0 | 180 | 500.0 |" in text
  assert "Reading 1 TB takes 0.14 h at 2 GB/s, parsing it 2.00 core" in text
  assert "1.00 h on 2 cores" in text


def test_bytes_are_those_that_operations_read_and_write():
  with tf.Graph().as_default(), tf.Session() as session:
    shown = tf.placeholder(tf.float32, [8, 16])
    found = tf.matmul(shown, tf.reshape(shown, [16, 8]))
    feed = {shown: np.ones([8, 16], np.float32)}
    trace = measuring.traced(session, found, feed)
  assert measuring.count_flops(trace) == 2 * 8 * 16 * 8
  assert cost.moved_bytes(trace) == pytest.approx(4 * (2 * 128 + 64), rel=0.3)


@pytest.mark.slow
def test_operations_of_a_step_are_linear_in_the_batch(tmp_path, monkeypatch):
  config = cost.Config(
    clusters=4, hidden_size=8, frames=3, feature_sizes="32,16", num_classes=30
  )
  settings = cost._settings(config, str(tmp_path), max_frames=9, seconds=0.0)
  found = cost.count(settings, "MeanModel")
  # Nothing but products of each video.
  assert abs(found.flops[0]) < 0.1 * found.flops[1]
  assert found.flops[1] > 2 * 48 * 8
  assert found.moved[0] > 0 and found.moved[1] > 0

  monkeypatch.setattr(cost, "count", lambda *unused_args: found)
  monkeypatch.setattr(cost, "_COPIED", 1 << 12)
  product = functools.partial(measuring.large_product, 64)
  monkeypatch.setattr(measuring, "large_product", product)
  config = dataclasses.replace(config, check=True)
  text = cost.check(config, settings, "MeanModel")
  assert re.search(r" give [\d.]+ s; a step takes [\d.]+ s: .* = [\d.]+$", text)
