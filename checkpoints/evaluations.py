"""What eval.py leaves: the results of each evaluation, and which was best.

DIRECTORY/metrics-STEP[-KIND].json      one evaluation
DIRECTORY/best_checkpoint[-KIND].json   the best of them by GAP
DIRECTORY/classes-STEP[-KIND].csv       each class, see `eval_tables`
DIRECTORY/confusions-STEP[-KIND].csv    the most confused pairs of classes
DIRECTORY/videos-STEP[-KIND].csv        the best and the worst videos
DIRECTORY/examples-STEP[-KIND].json     the first videos, see `pictures`

KIND keeps evaluations of other data apart. It is empty for the data that were
evaluated there first, or `segments` for the first of these; for any others it
has `holdout`, where they are that, and eight digits of a hash of what they are.
"""

import hashlib
import json
import os
import re

import tensorflow.compat.v1 as tf
from absl import logging

import files
from checkpoints import events

# What is ours in a train_dir: directories, and regular expressions of whole
# names.
DIRECTORY = "eval"
BEST = "best"
_KIND = r"(?:-segments)?(?:(?:-holdout)?-[0-9a-f]{8})?"
BEST_DIRECTORIES = rf"{BEST}{_KIND}"
FILES = (
  rf"(?:(?:metrics|examples)-\d+|best_checkpoint){_KIND}\.json"
  rf"|(?:classes|confusions|videos)-\d+{_KIND}\.csv"
)

# What tells one kind of evaluation from another.
_DATA = ("data_pattern", "holdout", "segments", "top_k", "skip_unlabelled")


def kind_of(data, directory):
  """The end of the names of what is written of an evaluation.

  Args:
    data: dict of all of `_DATA`.
    directory: str, where evaluations are written.

  Returns:
    "" or a text that begins with "-".
  """
  kind = "-segments" if data["segments"] else ""
  # Before its data were told, an evaluation was of any.
  told = [each for each in of_kind(directory, kind) if "data_pattern" in each]
  wanted = {name: data[name] for name in _DATA}
  if not told or wanted == {name: told[0].get(name) for name in _DATA}:
    return kind
  text = json.dumps(wanted, sort_keys=True)
  kind += "-holdout" if data["holdout"] else ""
  return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def log(results):
  """Logs an evaluation's results in a line."""
  logging.info(
    "epoch/eval number %d | Avg_Hit@1: %.4f | Avg_PERR: %.4f | MAP: %.4f | "
    "GAP: %.4f | Avg_Loss: %.6g | %d videos (%d without labels), flawed "
    "records: %s",
    results["step"],
    results["avg_hit_at_one"],
    results["avg_perr"],
    results["map"],
    results["gap"],
    results["avg_loss"],
    results["num_videos"],
    results["num_unlabelled"],
    results["flawed_records"] or "none",
  )


def write(results, directory, kind="", shown=None):
  """Writes an evaluation's results, for TensorBoard too.

  Args:
    results: dict as `eval.evaluate` returns it.
    directory: str, made if need be.
    kind: str, as of `kind_of`.
    shown: `tf.Summary` to write along, or None.
  """
  path = os.path.join(directory, f"metrics-{results['step']}{kind}.json")
  _write(path, results)
  scope = "SegEval" if results["segments"] else "Eval"
  scope += kind.removeprefix("-segments")
  scalars = {
    f"Epoch/{scope}_Avg_Hit@1": results["avg_hit_at_one"],
    f"Epoch/{scope}_Avg_Perr": results["avg_perr"],
    f"Epoch/{scope}_Avg_Loss": results["avg_loss"],
    f"Epoch/{scope}_MAP": results["map"],
    f"Epoch/{scope}_GAP": results["gap"],
    **events.common(
      {
        "GAP": results["gap"],
        "MAP": results["map"],
        "Hit@1": results["avg_hit_at_one"],
        "PERR": results["avg_perr"],
        "loss": results["avg_loss"],
      },
      kind,
    ),
  }
  scalars |= {
    f"input/{name}": number
    for name, number in results["flawed_records"].items()
  }
  with tf.Graph().as_default():
    writer = events.EventWriter(directory)
    writer.add_summary(events.scalar_summary(scalars), results["step"])
    if shown is not None:
      writer.add_summary(shown, results["step"])
    writer.close()
  logging.info("Wrote %s.", path)


def find_best(directory, kind, until=None):
  """The best evaluation of a kind, the first of equals.

  Args:
    directory: str, where evaluations are written.
    kind: str, as of `kind_of`.
    until: int, the last step that counts; None for all.

  Returns:
    dict of `step`, `gap`, `path` (of the checkpoint), what tells the kind, and
    `evaluations_since`, how many were of later steps; None without any.
  """
  found = [
    results
    for results in of_kind(directory, kind)
    if until is None or results["step"] <= until
  ]
  if not found:
    return None
  best = max(found, key=lambda results: results["gap"])
  kept = {name: best.get(name) for name in ("step", "gap", "path", *_DATA)}
  since = sum(results["step"] > best["step"] for results in found)
  return {**kept, "evaluations_since": since}


def write_best(best, directory, kind):
  """Writes what `find_best` returned."""
  _write(os.path.join(directory, f"best_checkpoint{kind}.json"), best)
  logging.info("Best GAP: %.4f, of %s.", best["gap"], best["path"])


def why_stop(train_dir, limit, step):
  """Why training may end by what eval.py found, or None.

  Args:
    train_dir: str.
    limit: int, evaluations without a better GAP that are enough; 0 for never.
    step: int, where training is: evaluations of later steps are of a run that
      went back since.
  """
  directory = os.path.join(train_dir, DIRECTORY)
  if not limit or not tf.io.gfile.isdir(directory):
    return None
  matches = [
    re.fullmatch(r"best_checkpoint(-.*)?\.json", name)
    for name in tf.io.gfile.listdir(directory)
  ]
  kinds = sorted((match[1] or "" for match in matches if match), key=len)
  # Where the first data are not evaluated, what is there counts.
  best = find_best(directory, kinds[0], until=step) if kinds else None
  if not best or best["evaluations_since"] < limit:
    return None
  return (
    f"--early_stop_evals={limit}: the best GAP, {best['gap']:.4f}, is that of "
    f"step {best['step']}, {best['evaluations_since']} evaluations ago."
  )


def of_kind(directory, kind):
  """Results of all evaluations of a kind, see `kind_of`, by step."""
  if not tf.io.gfile.isdir(directory):
    return []
  matches = [
    re.fullmatch(rf"metrics-(\d+){re.escape(kind)}\.json", name)
    for name in tf.io.gfile.listdir(directory)
  ]
  named = sorted(
    (match for match in matches if match), key=lambda match: int(match[1])
  )
  found = [_read(os.path.join(directory, match[0])) for match in named]
  return list(filter(None, found))


def _write(path, values):
  files.write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


def _read(path):
  """A file of ours; None, and a warning, if it is none."""
  try:
    with tf.io.gfile.GFile(path) as stream:
      found = json.load(stream)
    if isinstance(found["step"], int) and isinstance(found["gap"], float):
      return found
  except (KeyError, TypeError, ValueError):
    pass
  except tf.errors.NotFoundError:  # Just deleted.
    return None
  logging.warning("%s was not written by eval.py: ignored.", path)
  return None
