"""What stays as it is: checkpoints, predictions, training, flags, formats.

`tests/goldens` holds, for each registered model and some of its variants, a
small checkpoint of random weights, its model_flags.json, and its predictions
for stored records; what the first steps of training make of some of them; CSV
files; and all flags. `tests/goldens/make.py` wrote them.
"""

import functools
import json
import os
import pathlib
import re
import shutil
import tempfile
from xml.etree import ElementTree

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from absl import flags

import model_flags
from checkpoints import restore
from predictions import predictor, writing
from tests import programs, runs

HERE = pathlib.Path(__file__).resolve().parent / "goldens"
RECORDS = HERE / "records"
FRAME_RECORDS = str(RECORDS / "frame.tfrecord")
VIDEO_RECORDS = str(RECORDS / "video.tfrecord")
STEP = 3
CASES = sorted(path.parent.name for path in HERE.glob("*/model_flags.json"))

TRAINING = HERE / "training.json"
# Each with another optimiser, clipping and loss; none draws at random.
TRAININGS = {
  "LogisticModel": {
    "optimizer": "AdamOptimizer",
    "clip_gradient_norm": 0.0,
    "num_towers": 1,
  },
  "NetVLADModelLF": {
    "optimizer": "GradientDescentOptimizer",
    "ema_decay": 0.9,
    "orthogonality_penalty": 0.1,
    "coding_penalty": 0.1,
  },
  "AttentionNetVLADModel": {
    "optimizer": "MomentumOptimizer",
    "clip_by_global_norm": True,
    "label_smoothing": 0.1,
    "transformer_dropout": 0.0,
  },
  "SecondOrderModel": {
    "optimizer": "GradientDescentOptimizer",
    "clip_gradient_norm": 0.1,
    "moe_l2": 0.01,
  },
}

# What inference writes, and whether of segments.
CSV_FILES = {HERE / "videos.csv": False, HERE / "segments.csv": True}

FLAGS = HERE / "flags.json"
MODEL_DEFAULTS = HERE / "model_defaults.json"
PROGRAMS = (
  "train.py",
  "eval.py",
  "inference.py",
  "export_model.py",
  "scripts/compare_models.py",
  "scripts/make_dataset.py",
)


@functools.cache
def stored_videos(is_frame_level):
  """{name: array} of the stored records, as a reader gives them."""
  values = model_flags.load(
    str(HERE / ("NetVLADModelLF" if is_frame_level else "MoeModel"))
  )
  with tf.Graph().as_default(), tf.Session() as session:
    data = model_flags.build_reader(values).batches(
      [FRAME_RECORDS if is_frame_level else VIDEO_RECORDS],
      batch_size=99,
      num_readers=1,
      use_labels=False,
      skip_frameless=False,
    )
    return session.run(tf.data.make_one_shot_iterator(data).get_next())


def predict(name):
  """{video id: float32 [C]} of a stored checkpoint."""
  directory = str(HERE / name)
  values = model_flags.load(directory)
  videos = stored_videos(values["frame_features"])
  with tf.Graph().as_default(), tf.Session() as session:
    depth = videos["features"].shape[1]
    batch = {
      "features": tf.placeholder(videos["features"].dtype, [None, depth]),
      "num_frames": tf.placeholder(tf.int32, [None]),
    }
    predictions = predictor.predict(
      model_flags.build_model(values), batch, values["num_classes"]
    )
    restore.restore(session, os.path.join(directory, f"model.ckpt-{STEP}"))
    found = session.run(predictions, {batch[key]: videos[key] for key in batch})
  ids = videos["video_ids"]
  return {i.decode(): row for i, row in zip(ids, found, strict=True)}


def infer(output_file, has_segments):
  """Writes a CSV of the stored records."""
  directory = str(HERE / "NetVLADModelLF")
  values = model_flags.load(directory)
  writing.infer(
    os.path.join(directory, f"model.ckpt-{STEP}"),
    {**values, "segment_labels": has_segments},
    [FRAME_RECORDS],
    writing.Output(str(output_file), top_k=4, segment_max_pred=3),
    batch_size=2,
    num_readers=1,
  )


def train(name):
  """Trains a stored checkpoint for three steps.

  Returns:
    dict of `label_loss` and `reg_loss`, of each step, and of each variable, by
    how much it changed: the norm.
  """
  with tempfile.TemporaryDirectory() as directory:
    for path in (HERE / name).iterdir():
      shutil.copy(path, directory)
    before = runs.variables_of(os.path.join(directory, f"model.ckpt-{STEP}"))
    with open(os.path.join(directory, "checkpoint"), "w") as stream:
      stream.write(f'model_checkpoint_path: "model.ckpt-{STEP}"\n')
    values = model_flags.load(directory)
    checkpoint = runs.run_train(
      directory,
      FRAME_RECORDS if values["frame_features"] else VIDEO_RECORDS,
      **{
        **values,
        "num_towers": 2,
        "batch_size": 2,
        "num_readers": 1,
        "shuffle_buffer": 0,
        "base_learning_rate": 0.1,
        "max_steps": STEP + 3,
        **TRAININGS[name],
      },
    )
    after = runs.variables_of(checkpoint)
    events = runs.events(directory)
  found = {
    tag: list(events[tag].values()) for tag in ("label_loss", "reg_loss")
  }
  for variable in sorted(before):
    change = float(np.linalg.norm(after[variable] - before[variable]))
    found[variable] = float(f"{change:.8g}")
  return found


@functools.cache
def flags_of(program):
  """{flag: what it accepts} of a program's --helpxml."""
  _, text, stderr = programs.run_program(program, "--helpxml")
  assert "<flag>" in text, stderr
  found = {}
  for flag in ElementTree.fromstring(text).iter("flag"):
    if flag.findtext("file").startswith(("absl", "tensorflow")):
      continue
    facts = found[flag.findtext("name")] = {
      child.tag: child.text or ""
      for child in flag
      if child.tag in ("default", "type", "lower_bound", "upper_bound")
    }
    if choices := [choice.text for choice in flag.iter("enum_value")]:
      facts["choices"] = choices
  return found


def model_defaults():
  """{model: {flag: its value where only --model is given}}."""
  found = {}
  for name in model_flags.model_names():
    own = flags.FlagValues()
    model_flags.define(own)
    own(["program", f"--model={name}"])
    found[name] = model_flags.from_flags(own)
  return found


def _numbers_apart(text):
  """(text with its confidences replaced, the confidences)."""
  pattern = r"(?<= )[0-9]\S*\.[0-9]\S*"
  return re.sub(pattern, "#", text), re.findall(pattern, text)


def test_every_model_has_a_golden():
  have = {model_flags.load(str(HERE / name))["model"] for name in CASES}
  missing = sorted(set(model_flags.model_names()) - have)
  assert not missing, (
    f"No golden of {', '.join(missing)}: add it to CASES in "
    "tests/goldens/make.py and run it."
  )


# A fast run takes the models, not their variants.
@pytest.mark.rewritten
@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] if "-" in name else [])
    for name in CASES
  ],
)
def test_a_stored_checkpoint_predicts_what_it_did(name):
  with open(HERE / name / "predictions.json") as stream:
    expected = json.load(stream)
  found = predict(name)
  assert list(found) == list(expected)
  for video_id, row in expected.items():
    np.testing.assert_allclose(
      found[video_id], row, rtol=1e-5, atol=1e-5, err_msg=video_id
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_trains_as_it_did(name):
  with open(TRAINING) as stream:
    expected = json.load(stream)[name]
  found = train(name)
  assert sorted(found) == sorted(expected)
  for key, value in expected.items():
    np.testing.assert_allclose(
      found[key], value, rtol=1e-4, atol=1e-6, err_msg=key
    )


@pytest.mark.parametrize("path", CSV_FILES, ids=lambda path: path.name)
def test_writes_the_csv_that_it_wrote(path, tmp_path):
  infer(tmp_path / "out.csv", CSV_FILES[path])
  text, numbers = _numbers_apart((tmp_path / "out.csv").read_text())
  expected, before = _numbers_apart(path.read_text())
  assert text == expected
  for number, value in zip(numbers, before, strict=True):
    assert number == f"{float(number):g}"
    # What the sixth digit rounds may fall to either side.
    assert float(number) == pytest.approx(float(value), rel=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_has_the_flags_that_it_had(program):
  with open(FLAGS) as stream:
    expected = json.load(stream)[program]
  found = flags_of(program)
  changed = {}
  for name, wanted in expected.items():
    flag = dict(found.get(name, {}))
    # There may be more to choose from: models, above all.
    choices = wanted.pop("choices", [])
    if set(choices) - set(flag.pop("choices", choices)) or flag != wanted:
      changed[name] = (wanted, choices, found.get(name))
  assert not changed, f"{{flag: (before, now)}}: {changed}"


def test_every_model_has_the_defaults_that_it_had():
  with open(MODEL_DEFAULTS) as stream:
    expected = json.load(stream)
  found = model_defaults()
  missing = sorted(set(found) - set(expected))
  assert not missing, (
    f"No stored defaults of {', '.join(missing)}: run "
    "python -m tests.goldens.make."
  )
  for model, defaults in expected.items():
    changed = {
      name: (value, found[model].get(name))
      for name, value in defaults.items()
      if found[model].get(name) != value
    }
    assert not changed, f"{model}: {{flag: (before, now)}}: {changed}"
