"""Tests of events.py."""

import resource
import threading

import pytest
import tensorflow.compat.v1 as tf

from checkpoints import events
from tests import runs


def new_writer(directory):
  with tf.Graph().as_default():  # Writers refuse to exist in eager mode.
    return events.EventWriter(str(directory))


def test_a_scalar_summary_has_a_value_for_each_tag():
  summary = events.scalar_summary({"a": 1, "b/c": 0.5})
  assert [(value.tag, value.simple_value) for value in summary.value] == [
    ("a", 1.0),
    ("b/c", 0.5),
  ]


def test_what_cannot_be_written_is_an_error_that_names_the_file(
  tmp_path, monkeypatch
):
  # The writer's thread says the same, for who asks for it.
  monkeypatch.setattr(threading, "excepthook", lambda args: None)
  writer = new_writer(tmp_path)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    with pytest.raises(OSError, match=f"{tmp_path}/events.out") as caught:
      while True:
        writer.add_summary(events.scalar_summary({"x" * 1000: 1.0}), 1)
        writer.flush()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert str(caught.value).endswith("File too large")


def test_writers_of_one_second_keep_each_others_files(tmp_path):
  for value in (1.0, 2.0):
    writer = new_writer(tmp_path)
    writer.add_summary(events.scalar_summary({"a": value}), 1)
    writer.close()
  assert runs.events(tmp_path) == {"a": {1: 2.0}}
  assert len(list(tmp_path.iterdir())) == 2
