"""Trains models on the same data, and compares them in a table and a plot.

The comparison of the paper's Table 1, on data of one's own:

  python scripts/compare_models.py --output_dir=runs/comparison \\
    --train_data_pattern='/data/yt8m/frame/train*.tfrecord' \\
    --eval_data_pattern='/data/yt8m/frame/validate*.tfrecord' \\
    --max_steps=20000 --eval_steps=2000 --seeds=0,1,2 \\
    -- --frame_features=True --feature_names=rgb,audio \\
    --feature_sizes=1024,128 --batch_size=80 --base_learning_rate=0.0002

Everything after -- goes to train.py, of every run. Instead of equal steps,
--minutes=60 gives each run equal time. --models chooses the models; a variant
of one, under a label of its own, is a further row:

    --variant='gated: --model=NetVLADModelLF --gating=True'

Each run is a train.py of its own in OUTPUT_DIR/LABEL/seed-N, with what it said
in train.log. OUTPUT_DIR/comparison.md, .csv and .png are written anew after
each run. A comparison that was stopped, or a run that failed, goes on with the
same command; what is finished is not done again. Ctrl-C saves first.

Memory is that of the training process on the host. Time of --minutes counts
from the start of train.py, building of its graph included, over all its starts.
Needs the packages of pip install -e '.[plots]'.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import program  # isort: skip  (before TensorFlow)

import importlib.util
import json
import math
import platform
import re
import signal
import statistics
import subprocess
import time
from typing import Any

import tensorflow.compat.v1 as tf
import tqdm
from absl import flags

import files
import flag_fields
import model_flags
import predictor
import readers
import train
from checkpoints import restore
from scripts import comparison_report
from scripts.comparison_plan import Config, Run, as_flags, make_runs

_ROOT = os.path.dirname(os.path.abspath(train.__file__))
# ru_maxrss is in kilobytes, on macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_TAIL_LINES = 15


def split_arguments(argv: list[str]) -> tuple[list[str], list[str]]:
  """(arguments of this program, what comes after the first --)."""
  at = argv.index("--") if "--" in argv else len(argv)
  return argv[:at], argv[at + 1 :]


def _read_json(path):
  """What a file of ours holds, None if there is none."""
  try:
    with open(path, encoding="utf-8") as stream:
      return json.load(stream)
  except FileNotFoundError:
    return None


def _write_json(path, values):
  files.write_text(path, json.dumps(values, indent=2, sort_keys=True) + "\n")


def load_state(run: Run) -> dict[str, Any]:
  """A run's settings, seconds trained, peak memory, and whether it is trained.

  Raises:
    program.UserError: its directory holds something else, or was made with
      other flags.
  """
  now, state = run.settings(), _read_json(run.path("run.json"))
  if state is None:
    if os.path.isdir(run.directory) and os.listdir(run.directory):
      raise program.UserError(
        f"{run.directory} has no run.json: what is in it is not of this "
        "program. Give another --output_dir."
      )
    return {"settings": now, "seconds": 0.0, "peak_memory": 0, "trained": False}
  then = state["settings"]
  differing = [
    f"  --{name}: was {then.get(name)}, now {now.get(name)}"
    for name in sorted({*then, *now})
    if then.get(name) != now.get(name)
  ]
  if differing:
    raise program.UserError(
      "\n".join([f"{run.directory} was made with other flags:", *differing])
      + "\nGive those flags as they were, or another --output_dir, or delete "
      "that directory."
    )
  return state


class RunFailed(Exception):
  """A program ended otherwise than it should; tells the end of its log."""

  def __init__(self, what, log_path):
    with open(log_path, errors="replace") as log:
      lines = [line for line in log.read().splitlines() if line.strip()]
    super().__init__("\n".join([what, *lines[-_TAIL_LINES:]]))


def _start(run, name, given):
  """Starts a program: (`subprocess.Popen`, the path of its log)."""
  path = run.path(f"{name}.log")
  command = [sys.executable, os.path.join(_ROOT, f"{name}.py")]
  with open(path, "ab") as log:
    process = subprocess.Popen(
      command + as_flags({"train_dir": run.directory, **given}),
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      env={k: v for k, v in os.environ.items() if k != "TF_CONFIG"},
      # Ctrl-C comes from here, once, so that training saves.
      start_new_session=True,
    )
  return process, path


def train_run(run: Run, state: dict[str, Any]) -> None:
  """Trains, from where the run was stopped, to its end.

  Args:
    run: the run.
    state: what `load_state` returned; is updated, in its file too.

  Raises:
    KeyboardInterrupt: after train.py has saved.
    RunFailed: train.py failed, or ended before its last step.
  """
  _write_json(run.path("run.json"), state)
  limit = 60 * run.config.minutes if run.config.minutes else math.inf
  start, asked = time.monotonic() - state["seconds"], False
  process, log_path = _start(run, "train", run.train_flags())

  def wait(options=0):
    # The kernel counts in what this process had at the start, but train.py,
    # which loads the same libraries and trains, has more.
    pid, status, usage = os.wait4(process.pid, options)
    if pid:
      process.returncode = os.waitstatus_to_exitcode(status)
      peak = usage.ru_maxrss * _MAXRSS_UNIT
      state["peak_memory"] = max(state["peak_memory"], peak)
    state["seconds"] = time.monotonic() - start

  try:
    while process.returncode is None:
      if state["seconds"] >= limit and not asked:
        asked = True  # To save and end.
        process.terminate()
      time.sleep(0.1)
      wait(os.WNOHANG)
  except KeyboardInterrupt:
    _say("Waiting for train.py to save and end; Ctrl-C once more kills it.")
    if not asked:
      process.terminate()
    wait()
    raise
  finally:
    if process.returncode is None:
      process.kill()
      wait()
    _write_json(run.path("run.json"), state)
  # Asked before its first step, it has nothing to save and is just killed.
  if process.returncode not in ([0, -signal.SIGTERM] if asked else [0]):
    what = f"train.py ended with status {process.returncode}."
    raise RunFailed(what, log_path)
  checkpoint = restore.latest_checkpoint(run.directory)
  step = restore.step_of(checkpoint) if checkpoint else 0
  if not step or (not asked and step < (run.config.max_steps or math.inf)):
    raise RunFailed(f"train.py was stopped at step {step}.", log_path)
  state["trained"] = True
  _write_json(run.path("run.json"), state)


def _evaluate(run, name, pattern, **given):
  """Has eval.py evaluate a run: its results in the order of the steps."""
  given |= {
    "eval_data_pattern": run.config.patterns[pattern],
    "output_dir": run.path(name),
    "batch_size": run.config.eval_batch_size,
    "run_once": True,
  }
  process, log_path = _start(run, "eval", given)
  try:
    process.wait()
  finally:
    process.kill()
  if process.returncode:
    what = f"eval.py ended with status {process.returncode}."
    raise RunFailed(what, log_path)
  found = [
    _read_json(run.path(f"{name}/{file}"))
    for file in os.listdir(run.path(name))
    if re.fullmatch(r"metrics-\d+\.json", file)
  ]
  return sorted(found, key=lambda results: results["step"])


def evaluate_run(run: Run, state: dict[str, Any]) -> dict[str, Any]:
  """Evaluates a trained run's checkpoints: what its result.json holds."""
  *earlier, last = _evaluate(
    run,
    "eval_held_out",
    "eval_data_pattern",
    holdout=run.config.holdout,
    all_checkpoints=bool(run.config.eval_steps),
  )
  *_, training = _evaluate(run, "eval_training", "train_eval_data_pattern")
  # Others were saved because time had passed.
  curve = [
    found for found in earlier if not found["step"] % run.config.eval_steps
  ]
  gpus = [
    tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    for gpu in tf.config.list_physical_devices("GPU")
  ]
  result = {
    "held_out": last,
    "training": training,
    "curve": [[found["step"], found["gap"]] for found in [*curve, last]],
    "parameters": count_parameters(run),
    "examples_per_second": examples_per_second(run.path("train.log")),
    "peak_memory": state["peak_memory"],
    "machine": ", ".join(
      [f"{os.cpu_count()} {platform.machine()} cores", *gpus]
    ),
  }
  _write_json(run.path("result.json"), result)
  return result


def examples_per_second(log_path: str) -> float | None:
  """Median of what train.py logged; the first, of warming up, is left out."""
  with open(log_path, errors="replace") as log:
    rates = re.findall(r"training step .* Examples/sec: ([\d.]+)", log.read())
  return statistics.median(map(float, rates[1:])) if rates[1:] else None


def count_parameters(run: Run) -> int:
  """The number of trainable parameters of a run's model."""
  values = model_flags.load(run.directory)
  reader = model_flags.build_reader(values)
  paths = readers.expand_data_pattern(run.config.train_data_pattern)[:1]
  with tf.Graph().as_default():
    data = reader.batches(paths, batch_size=1)
    batch = tf.data.make_initializable_iterator(data).get_next()
    model = model_flags.build_model(values)
    predictor.predict(model, batch, reader.num_classes)
    return sum(v.shape.num_elements() for v in tf.trainable_variables())


def compare(runs: list[Run]) -> int:
  """Does all runs that are not done, and reports: how many failed."""
  states = [load_state(run) for run in runs]  # Refuses before the first run.
  report = comparison_report.Report(runs)
  with program.progress_bar(len(runs), "runs") as bar:
    for run, state in zip(runs, states):
      name = f"{run.label} seed {run.seed}"
      bar.set_postfix_str(name)
      try:
        result = _read_json(run.path("result.json"))
        if result:
          _say(f"{name}: done before")
        else:
          if not state["trained"]:
            train_run(run, state)
          result = evaluate_run(run, state)
          found = result["held_out"]
          _say(f"{name}: GAP {found['gap']:.4f} at step {found['step']}")
        report.results[run.label].append(result)
      except RunFailed as error:
        report.failures[run] = str(error)
        _say(f"{name}: FAILED: {error}\nLogs are in {run.directory}.")
      report.write()
      bar.update()
  print(f"\n{report.table()}\n")
  path = os.path.join(runs[0].config.output_dir, "comparison")
  print(f"Wrote {path}.md, .csv, .png.")
  return len(report.failures)


def _say(text):
  tqdm.tqdm.write(text, file=sys.stderr)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags."""
  flag_fields.define(Config, flag_values)
  flags.DEFINE_multi_string(
    "variant",
    [],
    "'LABEL: --model=X --flag=value ...': a further row, with flags of "
    "train.py, which prevail over those after --. May be repeated.",
    flag_values=flag_values,
  )


def main(
  passed_on: list[str], flag_values: flags.FlagValues = flags.FLAGS
) -> int:
  """Compares: the exit status."""
  for name in ("matplotlib", "tabulate"):
    if importlib.util.find_spec(name) is None:
      raise program.UserError(
        f"Need the package {name}: pip install -e '{_ROOT}[plots]'."
      )
  config = flag_fields.from_flags(Config, flag_values)
  runs = make_runs(config, flag_values["variant"].value or [], passed_on)
  for number in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:  # As nohup has it.
      signal.signal(number, signal.default_int_handler)  # As Ctrl-C.
  try:
    return program.FAILED if compare(runs) else 0
  except KeyboardInterrupt:
    _say("Stopped. The same command goes on from here.")
    return program.STOPPED


if __name__ == "__main__":
  define_flags()
  sys.argv, _PASSED_ON = split_arguments(sys.argv)
  program.run(lambda: main(_PASSED_ON), stops_on=())
