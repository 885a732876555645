"""Tests of saver.py."""

import types

import tensorflow.compat.v1 as tf

from checkpoints import restore
from predictions import predictor
from training import saver


def test_a_chief_that_sees_every_other_step_saves_all_the_same(
  tmp_path, monkeypatch
):
  # The worker's steps are between the chief's: it may never see a multiple.
  exported = []
  monkeypatch.setattr(
    predictor, "export", lambda checkpoint, *_: exported.append(checkpoint)
  )
  config = types.SimpleNamespace(
    train_dir=str(tmp_path),
    save_checkpoints_secs=0,
    save_checkpoints_steps=10,
    export_model_steps=20,
    keep_checkpoints=0,
  )
  with tf.Graph().as_default(), tf.Session() as session:
    tf.get_variable("global_step", [], initializer=tf.zeros_initializer())
    session.run(tf.global_variables_initializer())
    own = saver.Saver(
      config, {}, tf.global_variables(), checkpoint=None, start_step=0
    )
    for step in range(1, 46, 2):
      own.after_step(session, step)
  saved = [restore.step_of(str(p)[:-6]) for p in tmp_path.glob("*.index")]
  assert sorted(saved) == [11, 21, 31, 41]
  assert [restore.step_of(path) for path in exported] == [21, 41]
