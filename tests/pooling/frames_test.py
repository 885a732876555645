"""Tests of pooling/frames.py. Axes: B videos, T frames, D features."""

import numpy as np
import tensorflow.compat.v1 as tf

from pooling import frames as frames_lib
from tests import layers


def test_the_mask_is_true_on_the_real_frames():
  with tf.Graph().as_default(), tf.Session() as session:
    frames = tf.placeholder(tf.float32, [None, None, 5])
    mask = frames_lib.frame_mask(frames, tf.constant([2, 0, 3]))
    actual = session.run(mask, {frames: np.zeros([3, 3, 5])})
  assert actual.tolist() == [
    [True, True, False],
    [False, False, False],
    [True, True, True],
  ]


def test_padding_becomes_zero_whatever_it_holds():
  videos = layers.random_videos([3, 0, 1], 5)
  clean, mask = layers.pad(videos, 0.0)
  for poison in (1e30, np.inf, np.nan):
    padded, _ = layers.pad(videos, poison)
    with tf.Graph().as_default(), tf.Session() as session:
      found = session.run(
        frames_lib.zero_padding(tf.constant(padded), tf.constant(mask))
      )
    np.testing.assert_array_equal(found, clean)


def test_frames_are_themselves_without_batch_norm():
  with tf.Graph().as_default():
    frames = tf.zeros([2, 3, 5])
    mode = layers.mode(add_batch_norm=False)
    assert frames_lib.normalize_input(frames, None, mode=mode) is frames
    assert tf.global_variables() == []


def test_centred_frames_have_raw_frames_of_mean_zero():
  videos = [3.0 + video for video in layers.random_videos([4, 0, 3], 5)]
  padded, mask = layers.pad(videos)
  with tf.Graph().as_default(), tf.Session() as session:
    inputs = tf.constant(padded), tf.constant(mask)
    found = []
    for centred in (False, True):
      with tf.variable_scope("any", reuse=centred):
        found.append(
          frames_lib.normalize_input(
            *inputs, mode=layers.mode(), centred=centred
          )
        )
    layers.randomize(session)
    plain, centred = session.run([frames.formed for frames in found])
    raw = session.run(found[1].raw)
  layers.assert_close(centred[mask], plain[mask], rtol=1e-4, atol=1e-4)
  layers.assert_close(raw[mask].mean(axis=0), np.zeros(5), atol=1e-6)
