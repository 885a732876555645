"""Tests of what all layers are told."""

import pytest

from tests import layers


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_refuses_a_decay_outside_0_and_1(decay):
  with pytest.raises(ValueError, match=f"batch_norm_decay < 1, got {decay}"):
    layers.mode(decay=decay)


@pytest.mark.parametrize("add_batch_norm", [False, True])
def test_batch_norm_can_be_switched_alone(add_batch_norm):
  mode = layers.mode(is_training=False, decay=0.5, dtype="bfloat16")
  assert mode.with_batch_norm(add_batch_norm) == layers.mode(
    False, 0.5, dtype="bfloat16", add_batch_norm=add_batch_norm
  )
