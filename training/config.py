"""What train.py is told, besides the flags that define reader and model.

A field is the flag of its name; see `console/flag_fields.py`.
"""

import dataclasses

import files
from console import flag_fields
from training import learning_rate, optimizers, presets


@dataclasses.dataclass(frozen=True)
class _Data(flag_fields.Config, group="Data"):
  """What is read, and how."""

  train_data_pattern: str = flag_fields.paths(
    "",
    "Files to train on: comma-separated globs or directories of TFRecords. "
    "SequenceExamples with --frame_features, Examples without.",
    required=True,
  )
  batch_size: int = flag_fields.integer(
    1024, "Videos a step, for each tower.", low=1
  )
  num_epochs: int = flag_fields.integer(
    5, "Passes over the data; 0 for no end.", low=0
  )
  num_readers: int = flag_fields.integer(
    8, "Files that are read at the same time.", low=1
  )
  shuffle_buffer: int = flag_fields.integer(
    1024,
    "Records to draw the next one from; 0 reads files in their order. "
    "Frame-level records of YouTube-8M take about 250 KB each.",
    low=0,
    high=10_000_000,  # TensorFlow makes room for all at once.
  )
  data_service: str = flag_fields.text(
    "",
    "Address of the dispatcher of a tf.data service that reads the files, "
    "grpc://HOST:PORT: its machines read, unpack, hold out and shuffle, and "
    "send records; see scripts/data_service.py. A damaged file ends the run.",
  )
  skip_unlabelled: bool = flag_fields.boolean(
    False,
    "Leave out videos without a label within --num_classes. Without it they "
    "are learnt from: none of the classes is right. With --segment_labels "
    "a video gives its rated segments either way.",
  )
  strict_records: bool = flag_fields.boolean(
    False,
    "Stop at the first record that can't be used as it stands, instead of "
    "skipping or cutting it.",
  )


@dataclasses.dataclass(frozen=True)
class _Optimisation(flag_fields.Config, group="Optimisation"):
  """Losses, updates, and how long they go on."""

  max_steps: int | None = flag_fields.integer(
    None, "Stop at this global step.", low=1, alias="max_step"
  )
  regularization_penalty: float = flag_fields.real(
    1.0,
    "Weight of the regularisation loss; the label loss has 1.",
    low=0.0,
  )
  optimizer: str = flag_fields.choice(
    "AdamOptimizer", sorted(optimizers.OPTIMIZERS), "The optimiser."
  )
  base_learning_rate: float = flag_fields.real(
    0.01, "Learning rate at step 0.", low=0.0
  )
  learning_rate_schedule: str = flag_fields.choice(
    "exponential",
    learning_rate.SCHEDULES,
    "How the learning rate falls. exponential: in stairs, times "
    "--learning_rate_decay every --learning_rate_decay_examples. cosine: "
    "slowly, fast, slowly, along half a wave from --base_learning_rate to 0 at "
    "the run's last step, without restarts (Loshchilov & Hutter 2017, "
    "arXiv:1608.03983). That step is --max_steps or about the end of "
    "--num_epochs, whichever comes first; --max_steps with --num_epochs=0 is "
    "exact. A run that is prolonged goes on at the longer run's rate.",
  )
  learning_rate_warmup_steps: int = flag_fields.integer(
    0,
    "Let the learning rate grow linearly over so many first steps, to spare "
    "random weights large ones (Goyal et al. 2017, arXiv:1706.02677, section "
    "2.2): step n has n/steps of what --learning_rate_schedule says. 0 for "
    "none. Helps large batches and Transformers.",
    low=0,
  )
  learning_rate_decay: float = flag_fields.real(
    0.95,
    "Factor of the learning rate every --learning_rate_decay_examples.",
    low=0.0,
  )
  learning_rate_decay_examples: float = flag_fields.real(
    4000000.0,
    "Videos after which the learning rate is multiplied by "
    "--learning_rate_decay.",
    low=1.0,
  )
  clip_gradient_norm: float = flag_fields.real(
    1.0,
    "Norm that each variable's gradient is scaled down to; 0 for none.",
    low=0.0,
  )
  clip_by_global_norm: bool = flag_fields.boolean(
    False,
    "Let --clip_gradient_norm bound the norm of all gradients together.",
  )
  ema_decay: float = flag_fields.real(
    0.0,
    "Keep an exponential moving average of every weight, of this decay in "
    "[0, 1), and let eval.py, inference.py and exports use the averages in "
    "place of the weights (Polyak & Juditsky 1992; Szegedy et al. 2016, "
    "arXiv:1512.00567, section 8). 0 for none. It averages over about the last "
    "1/(1-decay) steps: 0.999 suits runs of ten thousands of steps, 0.9999 "
    "longer ones; in the first steps the decay is lower. A resumed run may "
    "begin to average, or cease to.",
    low=0.0,
    high=1.0,
  )
  ema_warmup: bool = flag_fields.boolean(
    True,
    "Let the averages of --ema_decay follow the first steps closely, as suits "
    "random weights: step t keeps (1 + t) / (10 + t) at most. --noema_warmup "
    "has the full decay from the first step on, for a run whose "
    "--init_checkpoint has all its weights.",
  )
  seed: int | None = flag_fields.seed(
    None, "Seed of initial values, shuffling and sampling."
  )
  deterministic: bool = flag_fields.boolean(
    False,
    "Same flags and data, same losses step by step, on one machine; slower. "
    "Implies --seed=0 where none is given.",
  )


@dataclasses.dataclass(frozen=True)
class _Augmentation(flag_fields.Config, group="Augmentation and labels"):
  """What training sees otherwise than it is stored."""

  label_smoothing: float = flag_fields.real(
    0.0,
    "Part, in [0, 1), of a video's labels that the training loss spreads "
    "evenly over all classes, against overconfidence and missing labels "
    "(Szegedy et al. 2016, arXiv:1512.00567, section 7); 0 for none, 0.1 in "
    "the paper. A video keeps its sum of labels. With --segment_labels it is "
    "spread over a segment's rated classes: nothing changes where one is "
    "rated. The logged label_loss is the smoothed one; metrics and eval.py see "
    "the true labels.",
    low=0.0,
    high=1.0,
  )
  mixup_alpha: float = flag_fields.real(
    0.0,
    "Train on mixtures of two videos and of their labels (mixup, Zhang et al. "
    "2018, arXiv:1710.09412), in shares drawn from Beta(alpha, alpha) of this "
    "alpha; 0 for none, 0.2 to 0.4 in the paper. Of frame-level videos the "
    "bags of frames are mixed: a share of the one's, the rest of the "
    "other's; see training/augmentation.py. Training metrics then compare "
    "what is predicted for the mixture with the first video's labels.",
    low=0.0,
  )
  frame_dropout: float = flag_fields.real(
    0.0,
    "Chance, in [0, 1), of each frame of a video to be left out in training, "
    "before --iterations frames are sampled from the rest; at least one stays.",
    low=0.0,
    high=1.0,
  )
  class_weights: str = flag_fields.path(
    "",
    "A file of what the label loss multiplies the terms of each class by, "
    "against rare classes or noisy ones: a weight a line for every class in "
    "order, or lines 'class,weight' for some, the others having 1. Finite and "
    ">= 0; a class of weight 0 is not learnt. With --segment_labels they "
    "multiply the ratings' weights. Training's alone: eval.py's loss and all "
    "metrics are without. Not kept in --train_dir: give it again to go on.",
  )


@dataclasses.dataclass(frozen=True)
class _Distillation(flag_fields.Config, group="Distillation"):
  """Who else is learnt from."""

  teachers: str = flag_fields.paths(
    "",
    "Learn from these trained models too: comma-separated train_dirs, for "
    "their newest checkpoints, or path prefixes. Their mean is predicted in "
    "each step; features and classes must be the same.",
  )
  teacher_predictions: str = flag_fields.path(
    "",
    "Learn from these predictions too, instead of --teachers: a file that "
    "inference.py wrote for the training videos with --output_format=npz "
    "--top_k=50, or a CSV of inference.py or blend.py. Videos that it lacks "
    "learn from their labels alone. In memory a million videos take 520 MB.",
  )
  distillation_weight: float = flag_fields.real(
    0.5,
    "How much teachers count: the loss is so much of theirs, and the rest of "
    "the labels' (Hinton et al. 2015, arXiv:1503.02531). The logged label_loss "
    "is this one; metrics see the true labels.",
    low=0.0,
    high=1.0,
  )
  distillation_temperature: float = flag_fields.real(
    1.0,
    "Soften probabilities for the teachers' part of the loss: logits are "
    "divided by it, and that part is multiplied by its square.",
    low=0.1,
    high=100.0,
  )


@dataclasses.dataclass(frozen=True)
class _Checkpoints(flag_fields.Config, group="Checkpoints and logs"):
  """What is written, and when."""

  train_dir: str = flag_fields.path(
    "/tmp/yt8m_model/",
    "Directory for checkpoints, the model's flags and TensorBoard's files.",
  )
  start_new_model: bool = flag_fields.boolean(
    False, "Delete what an earlier run left in --train_dir, and start afresh."
  )
  init_checkpoint: str = flag_fields.path(
    "",
    "Start a new run from what another has learnt: its train_dir, for its "
    "newest checkpoint, or a checkpoint's path prefix. It may have other "
    "classes, features or another head: variables of the same name and shape "
    "are taken, batch norm's averages too, the others start anew; a table says "
    "which. Its moving averages stand in for its weights. Step, epoch and "
    "optimiser start at 0, model flags are not inherited, and a run that goes "
    "on does not look at it.",
  )
  save_checkpoints_secs: int = flag_fields.integer(
    900,
    "Save a checkpoint every so many seconds; 0 for not by time.",
    low=0,
  )
  save_checkpoints_steps: int = flag_fields.integer(
    0, "Save a checkpoint every so many steps; 0 for not by steps.", low=0
  )
  keep_checkpoints: int = flag_fields.integer(
    5,
    "Newest checkpoints to keep; 0 for all. Older ones are deleted once a step "
    "from the newest was finite, and when the run ends.",
    low=0,
  )
  export_model_steps: int = flag_fields.integer(
    1000,
    "Export a SavedModel to train_dir/export every so many steps; 0 for never.",
    low=0,
  )
  early_stop_evals: int = flag_fields.integer(
    0,
    "Stop once so many evaluations have come since that of the best GAP, by "
    "what eval.py, watching with --all_checkpoints, writes to train_dir/eval; "
    "looked up after each save. 0 for never.",
    low=0,
  )
  log_steps: int = flag_fields.integer(
    10,
    "Compute training metrics and write summaries every so many steps.",
    low=1,
  )
  log_secs: int = flag_fields.integer(
    10,
    "Log a line at most every so many seconds, of a step of --log_steps; 0 for "
    "each of these. A terminal has one line instead, which moves.",
    low=0,
  )


@dataclasses.dataclass(frozen=True)
class _Devices(flag_fields.Config, group="Devices"):
  """Where a step is computed, and how precisely."""

  num_gpu: int = flag_fields.integer(
    1, "GPUs to use, one tower on each.", low=0
  )
  num_towers: int = flag_fields.integer(
    0,
    "Towers, on CPU devices where there is no GPU; 0 for one a GPU, or one.",
    low=0,
    high=1024,
  )
  mixed_precision: bool = flag_fields.boolean(
    False,
    "Round what goes into the matrix products of linear layers (an encoder's "
    "too), gating and sums of residuals to bfloat16 in training, for speed on "
    "processors and GPUs that have it (avx512_bf16 or amx_bf16 in "
    "/proc/cpuinfo; NVIDIA Ampere or newer); elsewhere it is slow. Weights, "
    "batch norm, statistics, whitening, second-order products, attention "
    "weights, classifier and losses stay float32, and so do eval.py, "
    "inference.py and exports: a run may change it at any time.",
  )
  xla: bool = flag_fields.boolean(
    False,
    "Let XLA compile parts of the step, for GPUs; the first steps take longer. "
    "On a CPU each step took longer, too, where it was tried.",
  )
  synchronous: bool = flag_fields.boolean(
    False,
    "With ps in TF_CONFIG: let its other tasks take each step together, as "
    "they do without ps. Each has all variables then, and the ps are idle.",
  )
  nccl: bool = flag_fields.boolean(
    True,
    "Of tasks that take each step together, let NCCL sum what lies on GPUs. "
    "Where the tasks fail twice with it, and without GPUs, TensorFlow's own "
    "operations do it, by way of the hosts.",
  )
  worker_timeout_secs: int = flag_fields.integer(
    600,
    "With tasks of TF_CONFIG that take each step together: wait so long for "
    "one that is missing, or is gone, until it is back; and for one that hangs "
    "in a step. With --data_service, for a step's records.",
    low=1,
  )
  log_device_placement: bool = flag_fields.boolean(
    False, "Log which device runs each operation."
  )


@dataclasses.dataclass(frozen=True)
class _Preset(flag_fields.Config, group="Preset"):
  """Flags that are given together."""

  preset: str | None = flag_fields.choice(
    None,
    presets.names,
    "Flags of a published command, or one of ours: a file of recipes/. Other "
    "flags of the command line win over its.",
    describes=presets.describe,
  )


@dataclasses.dataclass(frozen=True)
class Config(
  _Preset,
  _Devices,
  _Checkpoints,
  _Distillation,
  _Augmentation,
  _Optimisation,
  _Data,
):
  """What train.py's own flags say.

  Raises:
    ValueError: values that do not go together; it names the flags.
  """

  def __post_init__(self):
    super().__post_init__()
    if not self.train_dir:
      raise ValueError("--train_dir is empty.")
    if self.init_checkpoint and files.is_within(
      self.init_checkpoint, self.train_dir
    ):
      raise ValueError(
        f"--init_checkpoint={self.init_checkpoint} lies in --train_dir, which "
        "is to hold a new run: give another --train_dir."
      )
    if self.data_service and self.deterministic:
      raise ValueError(
        "--deterministic needs its own readers: leave --data_service out."
      )
    if self.teachers and self.teacher_predictions:
      raise ValueError("Give --teachers or --teacher_predictions, not both.")
    for name in ("ema_decay", "frame_dropout", "label_smoothing"):
      value = getattr(self, name)
      if not 0.0 <= value < 1.0:
        raise ValueError(f"Need 0 <= --{name} < 1, got {value}.")

  @property
  def effective_seed(self) -> int | None:
    """The seed, or what --deterministic implies."""
    return self.seed or 0 if self.deterministic else self.seed
