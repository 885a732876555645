"""Tests of console/messages.py."""

import json

import pytest
import tensorflow.compat.v1 as tf

from console import messages


@pytest.mark.parametrize(
  "value", ["short", b"\xff", 7, None, 0.5, [1, 2], {"a": ["b"]}, "é" * 90]
)
def test_short_values_are_shown_whole(value):
  assert messages.short(value) == repr(value)


@pytest.mark.parametrize(
  "value",
  [
    "x" * 10**7,
    b"x" * 10**7,
    10**4000,
    list(range(10**6)),
    {str(i): i for i in range(10**5)},
    json.loads("[" * 900 + "]" * 900),
    ["y" * 10**6] * 5,
  ],
  ids=lambda value: type(value).__name__,
)
def test_others_are_cut(value):
  assert len(messages.short(value)) < 1000


def test_a_long_text_is_cut_and_says_by_how_much():
  assert messages.cut("abc", 3) == "abc"
  assert messages.cut("abcdefg", 3) == "abc ... (4 characters more)"


def test_the_cause_is_the_line_after_the_failing_operation(tmp_path):
  with tf.Graph().as_default(), tf.Session() as session:
    save = tf.raw_ops.SaveV2(
      prefix=str(tmp_path / ("x" * 300)),
      tensor_names=["a"],
      shape_and_slices=[""],
      tensors=[tf.zeros([3])],
    )
    with pytest.raises(tf.errors.OpError) as caught:
      session.run(save)
  text = str(caught.value)
  assert "Detected at node" in text
  assert messages.cause(text) in text.splitlines()
  assert str(tmp_path) in messages.cause(text)
