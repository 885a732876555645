"""Trains a model on YouTube-8M TFRecords.

A frame-level model:

  python train.py --train_data_pattern='/data/yt8m/frame/train*.tfrecord' \\
    --train_dir=/models/netvlad --model=NetVLADModelLF --frame_features=True \\
    --feature_names=rgb,audio --feature_sizes=1024,128 \\
    --batch_size=80 --base_learning_rate=0.0002 --iterations=300 \\
    --netvlad_cluster_size=256 --gating=True --netvlad_relu=False

A run that was stopped goes on from its last checkpoint with the same command;
learning rate, batch size, data and number of towers may change, the
architecture may not. Distributed training is configured by TF_CONFIG.
"""

import program  # isort: skip  (before TensorFlow)

import contextlib
import dataclasses
import math
import os
import signal
import time
from typing import Any

import tensorflow
import tensorflow.compat.v1 as tf
from absl import flags, logging

import flag_types
import losses
import model_flags
import predictor
import readers
from checkpoints import evaluations, resume, train_dir, weight_averages
from pooling import products
from training import learning_rate, towers
from training import log as train_log
from training import placement as cluster

FLAGS = flags.FLAGS

# Marks the error of `_assert_finite` among TensorFlow's.
_NOT_FINITE = "Loss or gradients are not finite"

_OPTIMIZERS = {
  "AdadeltaOptimizer": tf.train.AdadeltaOptimizer,
  "AdagradOptimizer": tf.train.AdagradOptimizer,
  "AdamOptimizer": tf.train.AdamOptimizer,
  "FtrlOptimizer": tf.train.FtrlOptimizer,
  "GradientDescentOptimizer": tf.train.GradientDescentOptimizer,
  "MomentumOptimizer": lambda rate: tf.train.MomentumOptimizer(rate, 0.9),
  "RMSPropOptimizer": tf.train.RMSPropOptimizer,
}


def define_flags(flag_values: flags.FlagValues = FLAGS):
  """Defines the flags; with model_flags.py's they are the starter code's."""
  model_flags.define(flag_values)
  # So that --help shows them.
  flags.adopt_module_key_flags(model_flags, flag_values)
  flag_types.path(
    "train_dir",
    "/tmp/yt8m_model/",
    "Directory for checkpoints, the model's flags and TensorBoard's files.",
    flag_values=flag_values,
  )
  flag_types.paths(
    "train_data_pattern",
    "",
    "Files to train on: comma-separated globs or directories of TFRecords. "
    "SequenceExamples with --frame_features, Examples without.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "start_new_model",
    False,
    "Delete what an earlier run left in --train_dir, and start afresh.",
    flag_values=flag_values,
  )
  flag_types.integer(
    "batch_size",
    1024,
    "Videos a step, for each tower.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flag_types.real(
    "regularization_penalty",
    1.0,
    "Weight of the regularisation loss; the label loss has 1.",
    lower_bound=0.0,
    flag_values=flag_values,
  )
  flag_types.real(
    "base_learning_rate",
    0.01,
    "Learning rate at step 0.",
    lower_bound=0.0,
    flag_values=flag_values,
  )
  flags.DEFINE_enum(
    "learning_rate_schedule",
    "exponential",
    learning_rate.SCHEDULES,
    "How the learning rate falls. exponential: in stairs, times "
    "--learning_rate_decay every --learning_rate_decay_examples. cosine: "
    "slowly, fast, slowly, along half a wave from --base_learning_rate to 0 at "
    "the run's last step, without restarts (Loshchilov & Hutter 2017, "
    "arXiv:1608.03983). That step is --max_steps or about the end of "
    "--num_epochs, whichever comes first; --max_steps with --num_epochs=0 is "
    "exact. A run that is prolonged goes on at the longer run's rate.",
    flag_values=flag_values,
  )
  flag_types.integer(
    "learning_rate_warmup_steps",
    0,
    "Let the learning rate grow linearly over so many first steps, to spare "
    "random weights large ones (Goyal et al. 2017, arXiv:1706.02677, section "
    "2.2): step n has n/steps of what --learning_rate_schedule says. 0 for "
    "none. Helps large batches and Transformers.",
    lower_bound=0,
    flag_values=flag_values,
  )
  flag_types.real(
    "learning_rate_decay",
    0.95,
    "Factor of the learning rate every --learning_rate_decay_examples.",
    lower_bound=0.0,
    flag_values=flag_values,
  )
  flag_types.real(
    "learning_rate_decay_examples",
    4000000,
    "Videos after which the learning rate is multiplied by "
    "--learning_rate_decay.",
    lower_bound=1.0,
    flag_values=flag_values,
  )
  flag_types.integer(
    "num_epochs",
    5,
    "Passes over the data; 0 for no end.",
    lower_bound=0,
    flag_values=flag_values,
  )
  flag_types.integer(
    "max_steps",
    None,
    "Stop at this global step.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_alias(
    "max_step",
    "max_steps",
    flag_values=flag_values,
  )
  flag_types.integer(
    "export_model_steps",
    1000,
    "Export a SavedModel to train_dir/export every so many steps; 0 for never.",
    lower_bound=0,
    flag_values=flag_values,
  )
  flag_types.integer(
    "num_readers",
    8,
    "Files that are read at the same time.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_enum(
    "optimizer",
    "AdamOptimizer",
    sorted(_OPTIMIZERS),
    "The optimiser.",
    flag_values=flag_values,
  )
  flag_types.real(
    "clip_gradient_norm",
    1.0,
    "Norm that each variable's gradient is scaled down to; 0 for none.",
    lower_bound=0.0,
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "clip_by_global_norm",
    False,
    "Let --clip_gradient_norm bound the norm of all gradients together.",
    flag_values=flag_values,
  )
  flag_types.real(
    "ema_decay",
    0.0,
    "Keep an exponential moving average of every weight, of this decay in "
    "[0, 1), and let eval.py, inference.py and exports use the averages in "
    "place of the weights (Polyak & Juditsky 1992; Szegedy et al. 2016, "
    "arXiv:1512.00567, section 8). 0 for none. It averages over about the last "
    "1/(1-decay) steps: 0.999 suits runs of ten thousands of steps, 0.9999 "
    "longer ones; in the first steps the decay is lower. A resumed run may "
    "begin to average, or cease to.",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=flag_values,
  )
  flag_types.real(
    "label_smoothing",
    0.0,
    "Part, in [0, 1), of a video's labels that the training loss spreads "
    "evenly over all classes, against overconfidence and missing labels "
    "(Szegedy et al. 2016, arXiv:1512.00567, section 7); 0 for none, 0.1 in "
    "the paper. A video keeps its sum of labels. With --segment_labels it is "
    "spread over a segment's rated classes: nothing changes where one is "
    "rated. The logged label_loss is the smoothed one; metrics and eval.py see "
    "the true labels.",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "mixed_precision",
    False,
    "Round what goes into the matrix products of linear layers (an encoder's "
    "too), gating and sums of residuals to bfloat16 in training, for speed on "
    "processors and GPUs that have it (avx512_bf16 or amx_bf16 in "
    "/proc/cpuinfo; NVIDIA Ampere or newer); elsewhere it is slow. Weights, "
    "batch norm, statistics, whitening, second-order products, attention "
    "weights, classifier and losses stay float32, and so do eval.py, "
    "inference.py and exports: a run may change it at any time.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "xla",
    False,
    "Let XLA compile parts of the step, on GPUs; the first steps take longer. "
    "A CPU needs TF_XLA_FLAGS=--tf_xla_cpu_global_jit besides, and took longer "
    "for each step where it was tried.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "log_device_placement",
    False,
    "Log which device runs each operation.",
    flag_values=flag_values,
  )
  flag_types.integer(
    "num_gpu",
    1,
    "GPUs to use, one tower on each.",
    lower_bound=0,
    flag_values=flag_values,
  )
  flag_types.integer(
    "num_towers",
    0,
    "Towers, on CPU devices where there is no GPU; 0 for one a GPU, or one.",
    lower_bound=0,
    upper_bound=1024,
    flag_values=flag_values,
  )
  flag_types.integer(
    "save_checkpoints_secs",
    900,
    "Save a checkpoint every so many seconds; 0 for not by time.",
    lower_bound=0,
    flag_values=flag_values,
  )
  flag_types.integer(
    "save_checkpoints_steps",
    0,
    "Save a checkpoint every so many steps; 0 for not by steps.",
    lower_bound=0,
    flag_values=flag_values,
  )
  flag_types.integer(
    "keep_checkpoints",
    5,
    "Newest checkpoints to keep; 0 for all. Older ones are deleted once a step "
    "from the newest was finite, and when the run ends.",
    lower_bound=0,
    flag_values=flag_values,
  )
  flag_types.integer(
    "early_stop_evals",
    0,
    "Stop once so many evaluations have come since that of the best GAP, by "
    "what eval.py, watching with --all_checkpoints, writes to train_dir/eval; "
    "looked up after each save. 0 for never.",
    lower_bound=0,
    flag_values=flag_values,
  )
  flag_types.integer(
    "log_steps",
    10,
    "Log, compute training metrics and write summaries every so many steps.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flag_types.integer(
    "shuffle_buffer",
    1024,
    "Records to draw the next one from; 0 reads files in their order. "
    "Frame-level records of YouTube-8M take about 250 KB each.",
    lower_bound=0,
    upper_bound=10_000_000,  # TensorFlow makes room for all at once.
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "skip_unlabelled",
    False,
    "Leave out videos without a label within --num_classes. Without it they "
    "are learnt from: none of the classes is right. With --segment_labels "
    "a video gives its rated segments either way.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "strict_records",
    False,
    "Stop at the first record that can't be used as it stands, instead of "
    "skipping or cutting it.",
    flag_values=flag_values,
  )
  flag_types.seed(
    "seed",
    None,
    "Seed of initial values, shuffling and sampling.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "deterministic",
    False,
    "Same flags and data, same losses step by step, on one machine; slower. "
    "Implies --seed=0 where none is given.",
    flag_values=flag_values,
  )


@dataclasses.dataclass(frozen=True)
class Config:
  """What train.py's own flags say; each field is the flag of its name."""

  train_dir: str
  train_data_pattern: str
  start_new_model: bool
  batch_size: int
  regularization_penalty: float
  base_learning_rate: float
  learning_rate_schedule: str
  learning_rate_warmup_steps: int
  learning_rate_decay: float
  learning_rate_decay_examples: float
  num_epochs: int
  max_steps: int | None
  export_model_steps: int
  num_readers: int
  optimizer: str
  clip_gradient_norm: float
  clip_by_global_norm: bool
  ema_decay: float
  label_smoothing: float
  mixed_precision: bool
  xla: bool
  log_device_placement: bool
  num_gpu: int
  num_towers: int
  save_checkpoints_secs: int
  save_checkpoints_steps: int
  keep_checkpoints: int
  early_stop_evals: int
  log_steps: int
  shuffle_buffer: int
  skip_unlabelled: bool
  strict_records: bool
  seed: int | None
  deterministic: bool

  @classmethod
  def from_flags(cls, flag_values=FLAGS):
    """Reads the flags."""
    return cls(
      **{
        field.name: flag_values[field.name].value
        for field in dataclasses.fields(cls)
      }
    )


@dataclasses.dataclass
class Graph:
  """The training graph: what the loop runs, and its parts for who measures.

  Attributes:
    iterator: of the data, to be initialised.
    batch: dict of tensors, as `readers.py` makes it.
    gradients: list of (gradient, variable), merged over towers, not clipped.
    step_fetches: dict of what a step fetches: `step`, which runs all updates,
      `loss` and `num_videos`.
    metrics: dict of tensors, see `predictor.batch_metrics`.
    summary: serialised summaries of the step.
    finish: operation that marks the epochs as done; the chief's alone.
  """

  iterator: Any
  batch: dict
  gradients: list
  step_fetches: dict
  metrics: dict
  summary: Any
  finish: Any = None


class Trainer:
  """One task's run of training."""

  def __init__(self, config, values, task):
    """Checks all that can be checked before anything is written.

    Args:
      config: `Config`.
      values: dict of the model flags.
      task: `cluster.Task`, not a parameter server.

    Raises:
      ValueError: flags that do not go together, or a pattern without files.
    """
    self._config = config
    self._values = values
    self._task = task
    self._reader = model_flags.build_reader(values)
    self._model = model_flags.build_model(values)
    self._loss = losses.get_loss(values["label_loss"])
    if not config.train_dir:
      raise ValueError("--train_dir is empty.")
    for name in ("ema_decay", "label_smoothing"):
      value = getattr(config, name)
      if not 0.0 <= value < 1.0:
        raise ValueError(f"Need 0 <= --{name} < 1, got {value}.")
    self._paths = readers.expand_data_pattern(
      config.train_data_pattern, "train_data_pattern"
    )
    self._num_gpus = self._count_gpus()
    self._num_towers = config.num_towers or max(1, self._num_gpus)
    if self._num_gpus and self._num_towers > self._num_gpus:
      raise ValueError(
        f"--num_towers={self._num_towers}, but only {self._num_gpus} GPUs "
        "are in use."
      )
    self._total_steps = self._count_steps()
    if config.learning_rate_schedule == "cosine" and not self._total_steps:
      raise ValueError(
        "--learning_rate_schedule=cosine falls to 0 at the run's end, which is "
        "not known: give --max_steps (or --num_epochs, of files whose records "
        f"can be counted); got --max_steps={config.max_steps}, "
        f"--num_epochs={config.num_epochs}."
      )
    self._seed = config.seed
    if config.deterministic:
      self._seed = config.seed or 0

  def run(self):
    """Trains until the data or the steps end, or a signal asks to stop.

    Raises:
      ValueError: another run is training in train_dir, or it holds another
        model.
      program.UserError: no usable data, or a number that is not finite.
    """
    with contextlib.ExitStack() as stack:
      # The other tasks write nothing.
      if self._task.is_chief:
        stack.enter_context(train_dir.claimed(self._config.train_dir))
      self._run()

  def _run(self):
    config, task = self._config, self._task
    name = f"{task.job} {task.index}"
    logging.info("%s: %d files to train on.", name, len(self._paths))
    if self._config.deterministic:
      tensorflow.config.experimental.enable_op_determinism()
    # The other tasks find what the chief restored on the parameter servers.
    checkpoint = None
    if task.is_chief:
      checkpoint = train_dir.prepare(
        config.train_dir, self._values, config.start_new_model
      )
    step, epoch = resume.read_progress(checkpoint)
    if checkpoint:
      logging.info("Resuming from %s.", checkpoint)
      self._export_interrupted(checkpoint, step)
    if reason := self._why_done(step, epoch):
      logging.info("Nothing to do: %s", reason)
      if task.is_chief:
        train_dir.mark_finished(config.train_dir, step, reason)
      return
    if task.is_chief:
      # Before the graph is built: a watching eval.py would leave meanwhile.
      train_dir.unmark_finished(config.train_dir)
    session_config = program.session_config(
      num_cpus=1 if self._num_gpus else self._num_towers,
      log_device_placement=config.log_device_placement,
      xla=config.xla,
    )
    target = ""
    if task.is_distributed:
      # A worker that is gone must not hold up the others.
      session_config.device_filters.extend(["/job:ps", task.device])
      task.wait_for_servers()
      server = task.start_server(session_config)
      target = server.target
    with tf.Graph().as_default():
      if self._seed is not None:
        # Another part of the random sequence after a resume.
        tf.set_random_seed(self._seed + step + 1000003 * task.number)
      graph = self.build(step, epoch)
      with self._start_session(
        graph, target, session_config, checkpoint, step
      ) as session:
        if task.is_distributed:
          # Other tasks may be ahead of the checkpoint.
          step = int(session.run(tf.train.get_global_step()))
        self._loop(graph, session, step, checkpoint)

  def _export_interrupted(self, checkpoint, step):
    """Makes the export for which a killed run had saved a checkpoint."""
    period = self._config.export_model_steps
    output_dir = predictor.export_dir(checkpoint)
    if period and step % period == 0 and not tf.io.gfile.exists(output_dir):
      predictor.export(checkpoint, self._values, output_dir)

  def _why_done(self, step, epoch):
    """Why there is nothing to train, or None."""
    config = self._config
    if config.max_steps and step >= config.max_steps:
      return (
        f"{config.train_dir} is at step {step} of "
        f"--max_steps={config.max_steps}."
      )
    if config.num_epochs and epoch >= config.num_epochs:
      return f"the {epoch} epochs of --num_epochs are done."
    if step and self._task.is_chief:
      return evaluations.why_stop(
        config.train_dir, config.early_stop_evals, step
      )
    return None

  def _count_gpus(self):
    found = len(tf.config.list_physical_devices("GPU"))
    used = min(found, self._config.num_gpu)
    if used:
      logging.info("Training on %d of %d GPUs.", used, found)
    else:
      logging.info("No GPU in use: training on the CPU.")
    return used

  def _count_steps(self):
    """The step at which the run ends, about; None if it does not."""
    config = self._config
    ends = [config.max_steps] if config.max_steps else []
    if config.num_epochs:
      videos = readers.estimate_num_records(self._paths)
      videos *= config.num_epochs * (1.0 - self._values["holdout_fraction"])
      steps = math.ceil(videos / (config.batch_size * self._num_towers))
      if steps:
        # Every task reads all the data, and the steps of all count.
        ends.append(steps * self._task.num_computing)
    return min(ends, default=None)

  def _devices(self):
    """A device function for each tower."""
    devices = [f"/gpu:{i}" for i in range(self._num_towers)]
    variables = cluster.BySize(devices)
    if not self._num_gpus:
      devices = [f"/cpu:{i}" for i in range(self._num_towers)]
      variables = "/cpu:0"
    return [self._task.place(device, variables) for device in devices]

  def build(self, start_step, epoch):
    """Builds the training graph, in the default graph.

    Args:
      start_step: int, the global step that the run begins at.
      epoch: int, epochs that are done.

    Returns:
      `Graph`.
    """
    config = self._config
    host = self._task.place("/cpu:0", "/cpu:0")
    devices = self._devices()
    # GPUs share the variables out: a gradient is merged, clipped and applied
    # where its variable is. What is to leave for a cluster's parameter servers
    # is merged here first.
    merging = host
    if self._num_gpus and not self._task.is_distributed:
      merging = None
    elif self._num_gpus == 1:
      merging = devices[0]
    with tf.device(host):
      global_step = tf.train.get_or_create_global_step()
      epochs_done = tf.get_variable(
        "epoch",
        [],
        tf.int64,
        initializer=tf.zeros_initializer(),
        trainable=False,
      )
      seed = self._seed
      if seed is not None:
        # Another order of what is left of an epoch after a resume.
        seed += self._task.number + start_step
      data = self._reader.batches(
        self._paths,
        batch_size=config.batch_size * self._num_towers,
        num_readers=config.num_readers,
        num_epochs=config.num_epochs or None,
        first_epoch=epoch,
        shuffle_buffer=config.shuffle_buffer,
        seed=seed,
        deterministic=config.deterministic or not config.shuffle_buffer,
        holdout_fraction=self._values["holdout_fraction"],
        skip_unlabelled=config.skip_unlabelled,
        strict=config.strict_records,
      )
      iterator = tf.data.make_initializable_iterator(data)
      batch = iterator.get_next()
      parts = towers.split_batch(batch, self._num_towers)
      rate = learning_rate.build(
        global_step,
        schedule=config.learning_rate_schedule,
        base_rate=config.base_learning_rate,
        batch_size=config.batch_size * self._num_towers,
        decay=config.learning_rate_decay,
        decay_examples=config.learning_rate_decay_examples,
        total_steps=self._total_steps,
        warmup_steps=config.learning_rate_warmup_steps,
      )
    with products.precision(tf.bfloat16 if config.mixed_precision else None):
      result = towers.build(
        parts,
        self._model,
        self._loss,
        devices=devices,
        regularization_penalty=config.regularization_penalty,
        num_classes=self._reader.num_classes,
        merging_device=merging,
        label_smoothing=config.label_smoothing,
      )
    with tf.device(merging or devices[0]):
      gradients, norm = towers.clip_gradients(
        result.gradients,
        config.clip_gradient_norm,
        config.clip_by_global_norm,
      )
      optimizer = _OPTIMIZERS[config.optimizer](rate)
      # Nothing is updated by a step that is not finite.
      with tf.control_dependencies([_assert_finite(result.label_loss, norm)]):
        gradients = [(_identity(g), variable) for g, variable in gradients]
      update = optimizer.apply_gradients(gradients, global_step)
      updates = [update, *result.update_ops]
      if config.ema_decay:
        with tf.control_dependencies([update]):
          updates.append(weight_averages.update(config.ema_decay, global_step))
      finish = None
      if self._task.is_chief:
        updates.append(tf.assign(epochs_done, batch["epoch"]))
        finish = tf.assign(epochs_done, config.num_epochs)
      with tf.control_dependencies(updates):
        step = tf.identity(global_step.read_value())
      tf.summary.scalar("learning_rate", rate)
      tf.summary.scalar("label_loss", result.label_loss)
      tf.summary.scalar("reg_loss", result.reg_loss)
      for name, term in result.reg_terms.items():
        tf.summary.scalar(f"reg_loss/{name}", term)
      return Graph(
        iterator=iterator,
        batch=batch,
        gradients=result.gradients,
        step_fetches={
          "step": step,
          "loss": result.label_loss,
          "num_videos": tf.size(batch["num_frames"]),
        },
        metrics=predictor.batch_metrics(
          result.predictions,
          batch["labels"],
          predictor.TOP_K,
          batch.get("label_weights"),
        ),
        summary=tf.summary.merge_all(),
        finish=finish,
      )

  def _start_session(self, graph, target, session_config, checkpoint, step):
    """A session in which every variable has its value.

    Args:
      graph: `Graph`.
      target: str, where the session runs.
      session_config: `tf.ConfigProto`.
      checkpoint: path prefix, or None, to restore.
      step: int, the checkpoint's; 0 for None.

    Raises:
      program.UserError: the chief keeps this task waiting.
    """
    manager = tf.train.SessionManager(
      local_init_op=graph.iterator.initializer,
      ready_op=tf.report_uninitialized_variables(tf.global_variables()),
      recovery_wait_secs=1,
    )
    if self._task.is_chief:
      init_op, init_fn = resume.initialization(checkpoint)
      if self._task.is_distributed:
        init_op, init_fn = self._unless_served(
          init_op, init_fn, target, session_config, step
        )
      return manager.prepare_session(
        target, init_op=init_op, init_fn=init_fn, config=session_config
      )
    chief = self._task.chief
    for waited in range(0, cluster.WAIT_SECONDS, cluster.TELL_SECONDS):
      logging.info(
        "Waiting for the %s to initialise the variables, for %d s so far.",
        chief,
        waited,
      )
      try:
        return manager.wait_for_session(
          target, config=session_config, max_wait_secs=cluster.TELL_SECONDS
        )
      except tf.errors.DeadlineExceededError:
        continue
    raise program.UserError(
      f"The {chief} has not initialised the variables after "
      f"{cluster.WAIT_SECONDS} s: is it running?"
    )

  def _unless_served(self, init_op, init_fn, target, session_config, step):
    """What initialises the variables, or nothing where servers have them.

    A chief that returns finds the variables as the others have trained them in
    the meantime: they are newer than its checkpoint.

    Args:
      init_op: see `resume.initialization`.
      init_fn: likewise.
      target: str, where sessions run.
      session_config: `tf.ConfigProto`.
      step: int, that of the checkpoint.

    Returns:
      (operation, function of the session), in place of the two.
    """
    variables, global_step = tf.global_variables(), tf.train.get_global_step()
    own = self._config.train_dir
    if "://" not in own:
      own = os.path.abspath(own)
    with tf.device(self._task.place("/cpu:0", "/cpu:0")):
      # Servers outlive runs, and say by this whose variables they hold.
      owner = tf.get_variable(
        "train_dir",
        initializer=tf.constant(own),
        trainable=False,
        collections=[],
      )
    missing = tf.report_uninitialized_variables([*variables, owner])

    def claim(session):
      init_fn(session)
      session.run(owner.initializer)

    with tf.Session(target, config=session_config) as session:
      num_missing = session.run(missing).size
      if num_missing or self._config.start_new_model:
        if 0 < num_missing <= len(variables):
          logging.warning(
            "The parameter servers lack %d of %d variables: all of them are "
            "initialised.",
            num_missing,
            len(variables) + 1,
          )
        return init_op, claim
      found, living = session.run([owner, global_step])
    if found.decode() != own or living < step:
      logging.info(
        "The parameter servers hold step %d of the run in %s: all variables "
        "are initialised.",
        living,
        found.decode(),
      )
      return init_op, claim
    logging.info(
      "The parameter servers hold this run's variables, of step %d: it goes on "
      "from there, not from a checkpoint.",
      living,
    )
    return tf.no_op(), None

  def _loop(self, graph, session, start_step, checkpoint):
    config, task = self._config, self._task
    writer = None
    saver = None
    if task.is_chief:
      writer = train_log.EventWriter(config.train_dir, tf.get_default_graph())
      train_log.write_flags(
        writer, {**dataclasses.asdict(config), **self._values}
      )
      saver = _Saver(config, self._values, checkpoint, start_step)
    log = train_log.TrainLog(
      writer=writer,
      num_classes=self._reader.num_classes,
      start_step=start_step,
      total_steps=self._total_steps,
    )
    report = self._reader.report
    step = reported = start_step
    ended = early = False
    with program.Signals(
      [signal.SIGTERM, signal.SIGINT],
      "saving after this step",
      lambda *unused_args: None,
    ) as stop:
      while not (
        stop.name or early or (config.max_steps and step >= config.max_steps)
      ):
        fetches = dict(graph.step_fetches)
        reports = _crosses(reported, step + 1, config.log_steps)
        if reports:
          fetches["summary"] = graph.summary
          if log.wants_metrics():
            fetches["metrics"] = graph.metrics
        try:
          values = session.run(fetches)
        except tf.errors.OutOfRangeError:
          ended = True
          break
        except tf.errors.OpError as error:
          if report.error:
            raise report.error from None
          if _NOT_FINITE in error.message:
            raise program.UserError(
              f"{_NOT_FINITE} at step {step + 1}. "
              f"{saver.advice() if saver else _ADVICE}"
            ) from None
          raise
        step = int(values["step"])
        if step < reported:
          logging.warning(
            "Step %d came after step %d: the chief has begun again from a "
            "checkpoint.",
            step,
            reported,
          )
          reported = step - 1
        log.count(int(values["num_videos"]))
        if reports:
          reported = step
          log.report(
            step,
            float(values["loss"]),
            values.get("metrics"),
            values["summary"],
            report.counts(),
          )
        if saver and saver.after_step(session, step):
          early = evaluations.why_stop(
            config.train_dir, config.early_stop_evals, step
          )
      if step > reported:
        # A run shorter than --log_steps is reported too.
        log.report(step, float(values["loss"]), None, None, report.counts())
      if step == start_step and ended:
        raise program.UserError(
          f"No usable video in the {len(self._paths)} files of "
          f"--train_data_pattern: {report.summary()}. "
          + " ".join(report.problems()[:1])
        )
      if saver:
        if ended:
          # The same command then has nothing left to do.
          session.run(graph.finish)
        saver.save(session, step, again=ended)
        train_dir.prune(config.train_dir, config.keep_checkpoints)
        writer.close()
    reason = stop.name or early or ("end of data" if ended else "--max_steps")
    report.log_warnings()
    logging.info("Done at step %d (%s): %s.", step, reason, report.summary())
    if saver and not stop.name:
      train_dir.mark_finished(config.train_dir, step, reason)
    if stop.name:
      logging.info("The same command goes on from here.")


class _Saver:
  """Saves checkpoints by time and by step, and exports.

  Attributes:
    last: path prefix of the newest checkpoint, or None.
    good: that of the newest from which a step was finite, or None. What Adam
      makes of a rate of 1e38 is finite, and the loss after it is not.
  """

  def __init__(self, config, values, checkpoint, start_step):
    self.last = checkpoint
    found = train_dir.checkpoints(config.train_dir)
    # The run went on from the one before, or there would be no newer one.
    self.good = found[-2] if len(found) > 1 else None
    excess = len(found) - config.keep_checkpoints
    if config.keep_checkpoints and excess > 1:
      logging.warning(
        "--keep_checkpoints=%d: the %d oldest of the %d checkpoints in %s go "
        "after the first step. --keep_checkpoints=0 keeps all.",
        config.keep_checkpoints,
        excess,
        len(found),
        config.train_dir,
      )
    self._last_step = start_step
    self._config = config
    self._values = values
    self._prefix = os.path.join(config.train_dir, train_dir.CHECKPOINT_PREFIX)
    self._finite = tf.reduce_all(
      [
        tf.reduce_all(tf.is_finite(variable))
        for variable in tf.trainable_variables()
      ]
    )
    # Which checkpoints stay, and the list of them, are train_dir's.
    self._saver = tf.train.Saver(max_to_keep=None)
    self._last_time = time.monotonic()

  def after_step(self, session, step):
    """Saves and exports if it is time to, after a step that was finite.

    Returns:
      Whether it saved.
    """
    config = self._config
    if self.good != self.last:
      self.good = self.last
      train_dir.prune(config.train_dir, config.keep_checkpoints)
    by_time = config.save_checkpoints_secs
    exports = _crosses(self._last_step, step, config.export_model_steps)
    by_step = _crosses(self._last_step, step, config.save_checkpoints_steps)
    self._last_step = step
    saves = exports or by_step
    saves |= bool(by_time) and time.monotonic() - self._last_time >= by_time
    if saves:
      self.save(session, step)
    if exports:
      predictor.export(self.last, self._values, predictor.export_dir(self.last))
    return saves

  def save(self, session, step, again=False):
    """Saves, unless this step is saved already and not wanted again.

    Raises:
      program.UserError: a variable is not finite; nothing is saved.
    """
    if self.last == f"{self._prefix}-{step}" and not again:
      return
    if not session.run(self._finite):
      # The last step was finite, what it made of the variables is not.
      raise program.UserError(
        f"A variable is not finite after step {step}. {self.advice()}"
      )
    self.last = self._saver.save(
      session,
      self._prefix,
      global_step=step,
      write_meta_graph=False,
      write_state=False,
    )
    directory = self._config.train_dir
    tf.train.update_checkpoint_state(
      directory, self.last, train_dir.checkpoints(directory)
    )
    self._last_time = time.monotonic()
    logging.info("Saved %s.", self.last)

  def advice(self):
    """What to do when numbers are not finite any more."""
    text = f"Last good checkpoint: {self.good or 'none'}; "
    if self.good == self.last:
      text += "nothing was saved since. The same command goes on from it"
      if not self.good:
        text = "Nothing was saved yet. The same command starts afresh"
      return f"{text}. {_ADVICE}"
    text += f"no step from {self.last} was finite, so it may be ruined. "
    way_out = "starts afresh with --start_new_model"
    if self.good:
      name = os.path.basename(self.good)
      way_out = f"goes on from {name} if you move {self.last}.* away"
    return f"{text}{_ADVICE} If that fails too, the same command {way_out}."


_ADVICE = "Try a lower --base_learning_rate or --clip_gradient_norm."


def _crosses(before, after, period):
  """Whether a multiple of the period lies in (before, after].

  With several tasks, a task sees only some of the steps. No period is 0.
  """
  return bool(period) and after // period > before // period


def _identity(gradient):
  """The same on the same device."""
  with tf.colocate_with(gradient):
    return tf.identity(gradient)


def _assert_finite(loss, gradient_norm):
  """Fails the step, with `_NOT_FINITE`, unless both are finite."""
  return tf.debugging.Assert(
    tf.is_finite(loss) & tf.is_finite(gradient_norm),
    [_NOT_FINITE, loss, gradient_norm],
  )


def main():
  """Runs this process's task."""
  task = cluster.from_environment()
  if task.is_ps:
    logging.info("Parameter server %d: serving until killed.", task.index)
    # It computes nothing: the GPUs are the workers'.
    task.start_server(tf.ConfigProto(device_count={"GPU": 0})).join()
    return
  model_flags.warn_unused()
  Trainer(Config.from_flags(), model_flags.from_flags(), task).run()


if __name__ == "__main__":
  define_flags()
  program.run(main)
