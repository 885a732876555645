"""The flags that define a reader and a model, and what is built from them.

train.py saves their values in `train_dir/model_flags.json`; evaluation,
inference and export rebuild from that file, so that nobody retypes an
architecture. This is the one place below the programs that knows flags.

To add a model: write its class, and add one line to `_MODELS`.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf
from absl import flags, logging

import files
import flag_types
import frame_level_models
import losses
import messages
import readers
import video_level_models
from models import attention_netvlad, frame_level, second_order
from pooling import democratic, regularizers, transformer

FILE_NAME = "model_flags.json"

Values = Mapping[str, Any]


class _From(NamedTuple):
  """A constructor argument that is computed from flags."""

  compute: Callable[..., Any]
  flags: tuple[str, ...]

  def __call__(self, values):
    """The argument's value; a ValueError names the flags."""
    try:
      return self.compute(*(values[name] for name in self.flags))
    except ValueError as error:
      names = ", ".join(f"--{name}" for name in self.flags)
      raise ValueError(f"{names}: {error}") from None


def define(flag_values: flags.FlagValues = flags.FLAGS):
  """Defines the flags; each default is stated here and nowhere else."""

  def key(define_flag, name, default, text, *args, **kwargs):
    define_flag(name, default, *args, text, flag_values=flag_values, **kwargs)
    _NAMES.add(name)

  def enum(name, default, choices, text):
    flags.DEFINE_enum(name, default, choices, text, flag_values=flag_values)
    _NAMES.add(name)

  string, boolean = flags.DEFINE_string, flags.DEFINE_bool
  integer, real = flag_types.integer, flag_types.real

  # What is read.
  key(
    string,
    "feature_names",
    "mean_rgb",
    "Comma-separated names of the features in the records: 'rgb,audio' of "
    "frame-level files, 'mean_rgb,mean_audio' of video-level ones.",
  )
  key(
    string,
    "feature_sizes",
    "1024",
    "Comma-separated lengths of the features: '1024,128'.",
  )
  key(
    boolean,
    "frame_features",
    False,
    "Read frame-level records (SequenceExamples) for a frame-level model, "
    "rather than video-level ones (Examples) for a video-level model.",
  )
  key(
    boolean,
    "segment_labels",
    False,
    "Train and evaluate on rated five-second segments, predict for every such "
    "segment; needs --frame_features.",
  )
  key(
    integer,
    "num_classes",
    3862,
    "Labels are 0 to num_classes - 1.",
    lower_bound=2,
  )
  key(
    integer,
    "max_frames",
    300,
    "What a video has beyond so many frames is left out.",
    lower_bound=1,
  )
  key(
    real,
    "holdout_fraction",
    0.0,
    "Share of the videos, by a hash of their id, that train.py leaves out "
    "and eval.py --holdout sees alone. The paper holds out 0.02.",
    lower_bound=0.0,
    upper_bound=0.99,
  )
  # What is built.
  enum(
    "model",
    "LogisticModel",
    sorted([*_MODELS, *_ALIASES]),
    "The model to train.",
  )
  enum(
    "label_loss",
    "CrossEntropyLoss",
    sorted(losses.LOSSES),
    "The loss on predictions and labels.",
  )
  key(
    real,
    "batch_norm_decay",
    0.999,
    "Share of the batch-norm averages that is kept at each step, once they "
    "are warm; the first steps keep (1 + n) / (20 + n) if that is less.",
    lower_bound=0.0,
    upper_bound=0.999999,
  )
  # Frame-level models.
  key(
    integer,
    "iterations",
    30,
    "Frames of each video that the model sees; 0 for all of them.",
    lower_bound=0,
  )
  enum(
    "frame_sampling",
    "auto",
    ("auto", *frame_level.FRAME_SAMPLINGS),
    "How frames are sampled in training: 'uniform' (evenly spread), "
    "'random_frames', 'random_sequence' (consecutive), or 'auto', which is "
    "what --sample_random_frames says. Evaluation is always uniform.",
  )
  key(
    boolean,
    "sample_random_frames",
    True,
    "Train on frames drawn at random, rather than on a random run of "
    "consecutive ones.",
  )
  enum(
    "video_level_classifier_model",
    "MoeModel",
    sorted(_VIDEO_LEVEL_MODELS),
    "What classifies the pooled descriptor of a frame-level model.",
  )
  key(
    string,
    "netvlad_cluster_size",
    "64",
    "Centres of the widest feature; the others get a part of it (half in "
    "NetVLADModelLF, else a quarter), at least 1. Or a comma list, one for "
    "each feature.",
  )
  key(
    integer,
    "netvlad_hidden_size",
    1024,
    "Units of the hidden layer behind NetVLAD.",
    lower_bound=1,
  )
  key(boolean, "netvlad_relu", True, "ReLU6 on NetVLAD's hidden layer.")
  key(
    boolean,
    "netvlad_add_batch_norm",
    True,
    "Batch norm on NetVLAD's input, assignments, hidden layer and gates.",
  )
  key(
    boolean,
    "netvlad_hidden_batch_norm",
    True,
    "Batch norm on NetVLAD's hidden layer; else a bias, and weights that start "
    "with a deviation of 1 / sqrt(--netvlad_cluster_size), as WILLOW's.",
  )
  key(boolean, "gating", False, "Context gating on NetVLAD's hidden layer.")
  key(
    boolean,
    "gating_remove_diag",
    False,
    "No unit gates itself, in context gating and in probability gating.",
  )
  key(boolean, "lightvlad", False, "NetRVLAD: no centre is subtracted.")
  key(
    real,
    "descriptor_dropout",
    0.0,
    "Share of the pooled descriptor that is dropped in training (Srivastava et "
    "al. 2014).",
    lower_bound=0.0,
    upper_bound=0.99,
  )
  # Attention.
  key(
    integer,
    "transformer_head_size",
    16,
    "Dimensions of an attention head; a feature of size D has D // head size "
    "heads.",
    lower_bound=1,
  )
  key(
    integer,
    "transformer_feed_forward_factor",
    4,
    "Inner units of an encoder's feed-forward part, over the feature's size.",
    lower_bound=1,
  )
  key(
    real,
    "transformer_dropout",
    0.1,
    "Share of what attention and feed-forward part add to their residuals that "
    "is dropped in training.",
    lower_bound=0.0,
    upper_bound=0.99,
  )
  key(
    real,
    "attention_dropout",
    0.0,
    "Share of the attention weights that is dropped in training.",
    lower_bound=0.0,
    upper_bound=0.99,
  )
  enum(
    "attention_batch_norm",
    "projections",
    transformer.BATCH_NORMS,
    "Batch norm inside the attention block: of queries, keys, values and "
    "output, of the logits, or none.",
  )
  enum(
    "transformer_residual",
    "post_norm",
    transformer.RESIDUALS,
    "How an encoder adds to its input. zero_init: through gains that start at "
    "0, normalised before, so that training begins without the encoders' "
    "noise (Goyal et al. 2017; Bachlechner et al. 2020). post_norm: as "
    "published (Vaswani et al. 2017), which learns far worse here.",
  )
  enum(
    "cluster_similarity",
    "softmax",
    attention_netvlad.SIMILARITIES,
    "What makes assignments of the second encoder's output in "
    "AttentionNetVLADModel; the authors' code used relu.",
  )
  # Second order.
  enum(
    "residual_whitening",
    "group",
    second_order.WHITENINGS,
    "Whitening of unit residuals in SecondOrderModel: decorrelate features "
    "within groups, scale each feature, or none.",
  )
  key(
    integer,
    "whitening_group_size",
    16,
    "Neighbouring features that are decorrelated together; cost and memory "
    "grow with it.",
    lower_bound=1,
  )
  key(
    string,
    "second_order_cluster_size",
    "16",
    "Centres of the second order, as --netvlad_cluster_size.",
  )
  key(
    integer,
    "second_order_projection_size",
    64,
    "Dimensions that each feature is projected to before its second order is "
    "taken; P dimensions give P (P + 1) / 2 numbers a centre.",
    lower_bound=1,
  )
  key(
    integer,
    "second_order_sketch_size",
    0,
    "Instead of projecting, take a Tensor Sketch (Pham & Pagh 2013) of so many "
    "dimensions of the full-size residuals' second order, or the second order "
    "itself where it has no more; 0 for the projection.",
    lower_bound=0,
  )
  key(
    boolean,
    "signed_square_root",
    True,
    "Power-normalise the second order: sign(x) sqrt(|x|), as FAemb does.",
  )
  # What the paper left open.
  key(
    boolean,
    "democratic_weights",
    False,
    "Weigh frames so that each contributes alike to the descriptor (Jegou and "
    "Zisserman 2014), in NetVLAD-like and second-order models.",
  )
  key(
    boolean,
    "democratic_gradients",
    False,
    "Let gradients through the democratic weights.",
  )
  key(
    integer,
    "democratic_projection_size",
    0,
    "Find the democratic weights from frames projected at random to so many "
    "dimensions, which is cheaper; 0 for all dimensions.",
    lower_bound=0,
  )
  for name, text in {
    "orthogonality": "the mean squared cosine between centres (after Brock et "
    "al. 2017), about 1 / D at the start",
    "coding": "FAemb's coding error, |x - sum_j a_j c_j|^2 / 2 relative to "
    "|x|^2 (Do et al. 2015), about 1/2 at the start",
    "locality": "FAemb's locality, sum_j |a_j| |x - c_j|^3 relative to |x|^3 "
    "(Do et al. 2015), about 1 at the start",
  }.items():
    key(
      real,
      f"{name}_penalty",
      0.0,
      f"Weight of {text}; summed over the features, in the models with "
      "centres.",
      lower_bound=0.0,
    )
  key(
    integer,
    "dbof_cluster_size",
    8192,
    "Units of DbofModel's cluster layer.",
    lower_bound=1,
  )
  key(
    integer,
    "dbof_hidden_size",
    1024,
    "Units of DbofModel's hidden layer.",
    lower_bound=1,
  )
  key(
    boolean,
    "dbof_add_batch_norm",
    True,
    "Batch norm on DbofModel's input and both layers.",
  )
  enum(
    "dbof_pooling_method",
    "max",
    ("average", "max"),
    "How DbofModel pools over frames.",
  )
  enum(
    "dbof_activation",
    "sigmoid",
    ("relu", "relu6", "sigmoid"),
    "Activation of DbofModel's layers.",
  )
  # Mixture of experts.
  key(
    integer,
    "moe_num_mixtures",
    2,
    "Experts of each class, not counting the dummy that always says no.",
    lower_bound=1,
  )
  key(
    real,
    "moe_l2",
    1e-8,
    "L2 penalty of the experts' and their gates' weights.",
    lower_bound=0.0,
  )
  key(
    integer,
    "moe_low_rank_gating",
    -1,
    "Rank of the gates' weights; -1 for full rank.",
    lower_bound=-1,
  )
  key(boolean, "moe_prob_gating", False, "Gate the predicted probabilities.")
  enum(
    "moe_prob_gating_input",
    "prob",
    ("input", "prob"),
    "What the probabilities' gates see: the probabilities, or the "
    "classifier's input.",
  )
  _explain_model_defaults(flag_values)


# Flags of training that published evaluation and inference commands repeat.
_TRAINING_FLAGS = {
  flags.DEFINE_bool: ("start_new_model",),
  flags.DEFINE_float: (
    "base_learning_rate",
    "clip_gradient_norm",
    "learning_rate_decay",
    "learning_rate_decay_examples",
    "regularization_penalty",
  ),
  flags.DEFINE_integer: (
    "export_model_steps",
    "max_step",
    "max_steps",
    "num_epochs",
    "num_gpu",
  ),
  flags.DEFINE_string: ("optimizer", "train_data_pattern"),
}


def define_ignored(*also_bool: str) -> list[str]:
  """Defines training's flags so that they parse; see `warn_ignored`.

  Args:
    *also_bool: names of further truth-valued flags to accept.

  Returns:
    The names.
  """
  names = []
  for define_flag, group in _TRAINING_FLAGS.items():
    more = also_bool if define_flag is flags.DEFINE_bool else ()
    for name in (*group, *more):
      define_flag(name, None, "Accepted and ignored.")
      names.append(name)
  return names


# Names of all flags above, filled by define().
_NAMES: set[str] = set()

# Flags that may change between runs on one train_dir: no variable and no
# equation depends on them.
_MAY_CHANGE = frozenset(
  {
    "attention_dropout",
    "batch_norm_decay",
    "coding_penalty",
    "descriptor_dropout",
    "frame_sampling",
    "iterations",
    "label_loss",
    "locality_penalty",
    "max_frames",
    "moe_l2",
    "orthogonality_penalty",
    "sample_random_frames",
    "segment_labels",
    "transformer_dropout",
  }
)

_READER_FLAGS = (
  "feature_names",
  "feature_sizes",
  "frame_features",
  "num_classes",
  "max_frames",
  "holdout_fraction",
  "segment_labels",
)


def parse_names(text: str) -> list[str]:
  """The parts of a comma list, stripped."""
  return [part.strip() for part in text.split(",") if part.strip()]


def parse_ints(text: str) -> list[int]:
  """The numbers of a comma list.

  Raises:
    ValueError: a part is no integer, or too large for a size.
  """
  try:
    numbers = [int(part) for part in parse_names(str(text))]
  except ValueError:
    numbers = None
  if numbers is None or max(numbers, default=0) > flag_types.MAX_INTEGER:
    raise ValueError(
      f"Need comma-separated integers up to {flag_types.MAX_INTEGER}, such as "
      f"'1024,128', got "
      f"{messages.short(text)}."
    )
  return numbers


def _frame_sampling(frame_sampling, sample_random_frames):
  if frame_sampling != "auto":
    return frame_sampling
  return "random_frames" if sample_random_frames else "random_sequence"


_CLASSIFIER = {
  "batch_norm_decay": "batch_norm_decay",
  "l2_penalty": "moe_l2",
  "low_rank_gating": "moe_low_rank_gating",
  "num_mixtures": "moe_num_mixtures",
  "prob_gating": "moe_prob_gating",
  "prob_gating_input": "moe_prob_gating_input",
  "remove_diag": "gating_remove_diag",
}
_SAMPLING = {
  "iterations": "iterations",
  "frame_sampling_method": _From(
    _frame_sampling, ("frame_sampling", "sample_random_frames")
  ),
}
_FEATURES = {
  "feature_names": _From(parse_names, ("feature_names",)),
  "feature_sizes": _From(parse_ints, ("feature_sizes",)),
}

# What every `models.pooled.PooledModel` takes.
_POOLED = {
  "classifier": "video_level_classifier_model",
  **_FEATURES,
  **_SAMPLING,
  "cluster_sizes": _From(parse_ints, ("netvlad_cluster_size",)),
  "hidden_size": "netvlad_hidden_size",
  "hidden_batch_norm": "netvlad_hidden_batch_norm",
  "relu": "netvlad_relu",
  "gating": "gating",
  "gating_remove_diag": "gating_remove_diag",
  "add_batch_norm": "netvlad_add_batch_norm",
  "batch_norm_decay": "batch_norm_decay",
  "descriptor_dropout": "descriptor_dropout",
  "democratic": _From(
    democratic.Config,
    (
      "democratic_weights",
      "democratic_gradients",
      "democratic_projection_size",
    ),
  ),
  "penalties": _From(
    regularizers.Weights,
    ("orthogonality_penalty", "coding_penalty", "locality_penalty"),
  ),
}
_ENCODER = {
  "encoder": _From(
    transformer.Config,
    (
      "transformer_head_size",
      "transformer_feed_forward_factor",
      "transformer_dropout",
      "attention_dropout",
      "attention_batch_norm",
      "transformer_residual",
    ),
  ),
}

# name: (class, {constructor argument: flag, or what computes it from flags}).
# An argument `classifier` gets the model of --video_level_classifier_model.
_VIDEO_LEVEL_MODELS = {
  "LogisticModel": (video_level_models.LogisticModel, {}),
  "MoeModel": (video_level_models.MoeModel, _CLASSIFIER),
}
_FRAME_LEVEL_MODELS = {
  "FrameLevelLogisticModel": (frame_level_models.FrameLevelLogisticModel, {}),
  "DbofModel": (
    frame_level_models.DbofModel,
    {
      "classifier": "video_level_classifier_model",
      **_SAMPLING,
      "cluster_size": "dbof_cluster_size",
      "hidden_size": "dbof_hidden_size",
      "pooling_method": "dbof_pooling_method",
      "activation": "dbof_activation",
      "add_batch_norm": "dbof_add_batch_norm",
      "batch_norm_decay": "batch_norm_decay",
    },
  ),
  "NetVLADModelLF": (
    frame_level_models.NetVLADModelLF,
    {
      **_POOLED,
      "residuals": _From(lambda light: not light, ("lightvlad",)),
    },
  ),
  "AttentionEnhancedNetVLADModel": (
    frame_level_models.AttentionEnhancedNetVLADModel,
    {**_POOLED, **_ENCODER},
  ),
  "AttentionNetVLADModel": (
    frame_level_models.AttentionNetVLADModel,
    {
      **_POOLED,
      **_ENCODER,
      "similarity": "cluster_similarity",
    },
  ),
  "SecondOrderModel": (
    frame_level_models.SecondOrderModel,
    {
      **_POOLED,
      "residual_whitening": "residual_whitening",
      "whitening_group_size": "whitening_group_size",
      "second_order_cluster_sizes": _From(
        parse_ints, ("second_order_cluster_size",)
      ),
      "projection_size": "second_order_projection_size",
      "sketch_size": "second_order_sketch_size",
      "signed_square_root": "signed_square_root",
    },
  ),
}
_MODELS = {**_VIDEO_LEVEL_MODELS, **_FRAME_LEVEL_MODELS}


class _Derived(NamedTuple):
  """A default that is computed from the other flags' values."""

  compute: Callable[[Values], Any]
  text: str


# The paper, section 4.1, and its authors' code.
_PAPER_DEFAULTS = {
  "frame_sampling": "uniform",
  "gating": True,
  "iterations": 256,
  "netvlad_relu": False,
}
# {model: {flag: its default with this model}}; others have the flag's own. A
# model_flags.json that does not name a flag was written before there was one:
# the flag's own default is then what the model was built with.
_MODEL_DEFAULTS = {
  "NetVLADModelLF": {
    # Batch norm only with ReLU: WILLOW's code.
    "netvlad_hidden_batch_norm": _Derived(
      lambda values: values["netvlad_relu"], "what --netvlad_relu is"
    ),
  },
  "AttentionEnhancedNetVLADModel": {
    **_PAPER_DEFAULTS,
    "transformer_residual": "zero_init",
  },
  "AttentionNetVLADModel": {
    **_PAPER_DEFAULTS,
    "transformer_residual": "zero_init",
  },
  "SecondOrderModel": _PAPER_DEFAULTS,
}
# Who gives one of these has chosen the other too.
_GIVEN_WITH = {"frame_sampling": "sample_random_frames"}

# Names of the paper's own repository.
_ALIASES = {
  "NetVladV1": "AttentionEnhancedNetVLADModel",
  "NetVladV2": "AttentionNetVLADModel",
}


def model_names() -> list[str]:
  """Every registered model."""
  return sorted(_MODELS)


def is_frame_level(model_name: str) -> bool:
  """Whether a model takes frames, rather than one vector a video."""
  return model_name in _FRAME_LEVEL_MODELS


def build_model(values: Values):
  """Builds the model that the flags describe.

  Args:
    values: value of each flag of `define`.

  Returns:
    A `models.BaseModel`.

  Raises:
    ValueError: --model and --frame_features do not go together, or a value that
      the model refuses.
  """
  name = values["model"]
  if is_frame_level(name) != values["frame_features"]:
    kind = "frame-level" if is_frame_level(name) else "video-level"
    raise ValueError(
      f"--model={name} is a {kind} model, but "
      f"--frame_features={values['frame_features']}: give "
      f"--frame_features={is_frame_level(name)} with {kind} files and their "
      "--feature_names and --feature_sizes."
    )
  return _build(name, values)


def _build(name, values):
  cls, sources = _MODELS[name]
  arguments = {}
  for argument, source in sources.items():
    if argument == "classifier":
      arguments[argument] = _build(values[source], values)
    elif isinstance(source, _From):
      arguments[argument] = source(values)
    else:
      arguments[argument] = values[source]
  return cls(**arguments)


def build_reader(values: Values) -> readers.BaseReader:
  """Builds the reader that the flags describe.

  Raises:
    ValueError: names and sizes that the reader refuses.
  """
  kwargs = {name: source(values) for name, source in _FEATURES.items()}
  kwargs["num_classes"] = values["num_classes"]
  if values["frame_features"]:
    return readers.YT8MFrameFeatureReader(
      **kwargs,
      max_frames=values["max_frames"],
      segment_labels=values["segment_labels"],
    )
  if values["segment_labels"]:
    raise ValueError("--segment_labels needs --frame_features=True.")
  return readers.YT8MAggregatedFeatureReader(**kwargs)


def used_flags(values: Values) -> set[str]:
  """The flags that matter to the model which the values describe."""
  used = {"model", "label_loss", *_READER_FLAGS}
  pending = [values["model"]]
  while pending:
    for argument, source in _MODELS[pending.pop()][1].items():
      used.update(source.flags if isinstance(source, _From) else [source])
      if argument == "classifier":
        pending.append(values[source])
  return used


# Flags that matter only where the others' values let them.
_MATTERS = {
  "coding_penalty": lambda values: not values["lightvlad"],
  "democratic_gradients": lambda values: values["democratic_weights"],
  "democratic_projection_size": lambda values: values["democratic_weights"],
  "gating_remove_diag": lambda values: (
    values["gating"] or values["moe_prob_gating"]
  ),
  "locality_penalty": lambda values: not values["lightvlad"],
  "moe_prob_gating_input": lambda values: values["moe_prob_gating"],
  "netvlad_hidden_batch_norm": lambda values: values["netvlad_add_batch_norm"],
  "orthogonality_penalty": lambda values: not values["lightvlad"],
  "sample_random_frames": lambda values: values["frame_sampling"] == "auto",
  "second_order_projection_size": lambda values: (
    not values["second_order_sketch_size"]
  ),
  "whitening_group_size": lambda values: (
    values["residual_whitening"] == "group"
  ),
}


def effective_flags(values: Values) -> set[str]:
  """`used_flags`, less those that the others' values put out of use."""
  return {
    name
    for name in used_flags(values)
    if name not in _MATTERS or _MATTERS[name](values)
  }


def from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, Any]:
  """The flags' values, free of aliases, with the model's own defaults."""
  values = {name: flag_values[name].value for name in sorted(_NAMES)}
  given = {name for name in _NAMES if flag_values[name].present}
  return with_model_defaults(values, given)


def with_model_defaults(values: Values, given: Iterable[str]) -> dict[str, Any]:
  """Values in which flags that were not given have their model's default.

  Args:
    values: value of each flag of `define`; the model may be an alias.
    given: names of the flags that stay as they are.

  Returns:
    dict, what `save` takes.
  """
  values = {**values}
  values["model"] = _ALIASES.get(values["model"], values["model"])
  given = set(given)
  for name, default in _MODEL_DEFAULTS.get(values["model"], {}).items():
    if name in given or _GIVEN_WITH.get(name) in given:
      continue
    if isinstance(default, _Derived):
      default = default.compute(values)
    values[name] = default
  return values


def _explain_model_defaults(flag_values):
  """Adds the defaults that depend on the model to the flags' help."""
  models = {}
  for model, defaults in _MODEL_DEFAULTS.items():
    for name, default in defaults.items():
      text = default.text if isinstance(default, _Derived) else str(default)
      models.setdefault(name, {}).setdefault(text, []).append(model)
  for name, texts in models.items():
    flag = flag_values[name]
    for text, those in texts.items():
      flag.help += f" Not given, {text} in {', '.join(those)}."


def warn_unused(flag_values: flags.FlagValues = flags.FLAGS):
  """Names the model flags of the command line that have no effect.

  Those that the model does not use, or not with its other flags as they are.
  """
  used = effective_flags(from_flags(flag_values))
  unused = [
    f"--{name}" for name in sorted(_NAMES - used) if flag_values[name].present
  ]
  if unused:
    logging.warning(
      "%s does not use %s.", flag_values["model"].value, ", ".join(unused)
    )


def load_for_data(
  train_dir: str, flag_values: flags.FlagValues = flags.FLAGS
) -> dict[str, Any]:
  """`load`, with what the command line says of the data rather than the model.

  A model trained on videos can be asked for segments, and the other way round.
  """
  values = load(train_dir)
  if flag_values["segment_labels"].present:
    values["segment_labels"] = flag_values["segment_labels"].value
  return values


def warn_ignored(
  saved: Values,
  extra: Iterable[str] = (),
  flag_values: flags.FlagValues = flags.FLAGS,
):
  """Names the flags of the command line that give way to the saved ones.

  Published command lines repeat the architecture at evaluation and inference.

  Args:
    saved: what `load` returned.
    extra: further flags that are accepted and have no effect.
    flag_values: the parsed flags.
  """
  given = [
    name
    for name in sorted(_NAMES - {"segment_labels"})
    if flag_values[name].present
  ]
  current = from_flags(flag_values)
  differing = [
    f"--{name}={current[name]} (trained with {saved[name]})"
    for name in given
    if current[name] != saved[name]
  ]
  ignored = given + [name for name in extra if flag_values[name].present]
  if ignored:
    logging.warning(
      "Ignored, as the model is rebuilt from its %s: %s.",
      FILE_NAME,
      ", ".join(f"--{name}" for name in ignored),
    )
  if differing:
    logging.warning("Of these differ: %s.", ", ".join(differing))


def save(train_dir: str, values: Values):
  """Writes `train_dir/model_flags.json`."""
  text = json.dumps(dict(values), indent=2, sort_keys=True) + "\n"
  files.write_text(os.path.join(train_dir, FILE_NAME), text)


def load(train_dir: str) -> dict[str, Any]:
  """Reads `train_dir/model_flags.json`.

  A flag that the file does not name, being younger, has its default.

  Raises:
    ValueError: no such file, or not of this format, or a value that its flag
      does not accept.
  """
  path = os.path.join(train_dir, FILE_NAME)
  if not tf.io.gfile.exists(path):
    raise ValueError(
      f"{path} does not exist: is --train_dir={train_dir} the directory that "
      "train.py wrote to?"
    )
  with tf.io.gfile.GFile(path) as stream:
    try:
      saved = json.load(stream)
    except (RecursionError, ValueError) as error:
      raise ValueError(f"{path} is not JSON: {error}.") from None
  own = flags.FlagValues()
  define(own)
  values = {name: own[name].value for name in _NAMES}
  unknown = sorted(set(saved) - set(values)) if isinstance(saved, dict) else []
  if not isinstance(saved, dict) or saved.get("model") not in [*_MODELS]:
    raise ValueError(
      f"{path} names no model of {', '.join(model_names())}: was it written "
      "by another codebase?"
    )
  if unknown:
    logging.warning("%s has flags unknown here: %s.", path, ", ".join(unknown))
  for name in set(saved) & set(values):
    try:
      values[name] = _parse_saved(own[name], saved[name])
    except ValueError:
      raise ValueError(
        f"{path}: {name} is {messages.short(saved[name])}, but --{name} needs "
        f"{_wanted(own[name])}."
      ) from None
  return values


def _parse_saved(flag, value):
  """What a flag makes of a value of a JSON file.

  Raises:
    ValueError: the flag could not have had it.
  """
  if value is None and flag.default is None:
    return None
  is_bool = flag.flag_type() == "bool"
  scalar = bool if is_bool else (int, float, str)
  if not isinstance(value, scalar) or isinstance(value, bool) != is_bool:
    raise ValueError
  return flag.parser.parse(value if is_bool else str(value))


def _wanted(flag):
  """What values a flag accepts, in words."""
  if isinstance(flag, flags.EnumFlag):
    return f"one of {', '.join(flag.parser.enum_values)}"
  plain = {"bool": "true or false", "string": "a string"}
  return plain.get(flag.flag_type(), flag.parser.syntactic_help)


def differences(
  saved: Values, current: Values
) -> tuple[list[tuple[str, Any, Any]], list[tuple[str, Any, Any]]]:
  """Compares a train_dir's flags with those of a run that would go on in it.

  Args:
    saved: what `load` returned.
    current: what `from_flags` returned.

  Returns:
    (what forbids going on, what may change), each a list of
    (flag, saved value, current value). Flags without effect in both are left
    out.
  """
  used = effective_flags(saved) | effective_flags(current)
  changed = [
    (name, saved[name], current[name])
    for name in sorted(used)
    if saved[name] != current[name]
  ]
  return (
    [change for change in changed if change[0] not in _MAY_CHANGE],
    [change for change in changed if change[0] in _MAY_CHANGE],
  )
