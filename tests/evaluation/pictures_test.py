"""Tests of evaluation/pictures.py and pooling/observe.py."""

import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import model_flags
import readers
from checkpoints import restore
from evaluation import pictures
from pooling import observe, transformer
from tests import runs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  return runs.shared_model(tmp_path_factory)


@pytest.fixture(scope="module")
def seen(model):
  """`pictures.Look` at two videos of a trained model."""
  directory, pattern = model
  return pictures.look(
    restore.latest_checkpoint(str(directory)),
    model_flags.load(str(directory)),
    readers.expand_data_pattern(pattern),
    lambda i: f"<{i}>",
    2,
  )


def test_examples_are_the_first_videos_with_names_and_maps(seen, model):
  labels = runs.labels_of(model[1])
  first = seen.examples[0]
  assert len(seen.examples) == 2
  assert set(first.labels) == {f"<{i}>" for i in labels[first.video_id]}
  scores = [score for _, score in first.predictions]
  assert len(scores) == 5 and scores == sorted(scores, reverse=True)
  assert [(m.name, m.kind) for m in first.maps] == [
    ("netvlad_rgb", "assignments"),
    ("netvlad_audio", "assignments"),
  ]
  for name, centres in (("netvlad_rgb", 4), ("netvlad_audio", 2)):
    shares = seen.usage[name]
    assert shares.shape == (centres,) and shares.sum() == pytest.approx(1)


def test_what_was_seen_is_shown_and_written(seen, tmp_path):
  shown = pictures.summary(seen)
  tags = {value.tag for value in shown.value}
  assert {
    "examples",
    "assignments/netvlad_rgb/video 1",
    "centres in use/netvlad_audio",
    "use of centres/netvlad_audio",
  } <= tags
  image = next(v.image for v in shown.value if v.HasField("image"))
  with tf.Graph().as_default(), tf.Session() as session:
    pixels = session.run(tf.image.decode_png(image.encoded_image_string))
  assert pixels.shape == (image.height, image.width, 3)
  pictures.write(str(tmp_path / "x.json"), seen)
  stored = json.loads((tmp_path / "x.json").read_text())
  assert len(stored["examples"]) == 2
  assert stored["examples"][0]["maps"][0]["png"].startswith("iVBORw0KGgo")


@pytest.mark.parametrize(
  ("shares", "expected"),
  [([0.25] * 4, 1), ([1, 0, 0, 0], 1 / 4), ([0.5, 0.5, 0, 0], 1 / 2), ([0], 0)],
)
def test_centres_in_use(shares, expected):
  assert pictures.effective(np.array(shares, float)) == pytest.approx(expected)


def test_attention_is_noted_when_asked_for_and_shown_without_padding():
  rng = np.random.default_rng(0)
  # Two queries, five keys, of which three are real; three heads.
  queries, keys = rng.normal(size=[1, 3, 2, 4]), rng.normal(size=[1, 3, 5, 4])
  mask = np.arange(5)[np.newaxis] < 3
  with tf.Graph().as_default(), tf.Session() as session:

    def attend():
      tensors = [tf.constant(x, tf.float32) for x in (queries, keys, keys)]
      return transformer.attention(*tensors, tf.constant(mask))

    attend()
    with observe.collecting() as noted:
      attend()
    assert [each.kind for each in noted] == ["attention"]
    (found,) = session.run(pictures._map(noted[0], 1))
  expected = np.zeros([2, 5])
  for head in range(3):
    for s in range(2):
      weights = np.exp(
        [queries[0, head, s] @ keys[0, head, t] for t in range(3)]
      )
      expected[s, :3] += weights / weights.sum() / 3
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  assert pictures._real("attention", found).shape == (2, 3)
