"""Flags that models share: a group of fields a class, to inherit from.

A model's own flags stand in its class. Where two models have a flag of the same
name, it is the same field: it is made here.
"""

import dataclasses

from console import flag_fields
from models import registry
from pooling import democratic, hidden, netvlad, regularizers, transformer

FRAME_SAMPLINGS = ("uniform", "random_frames", "random_sequence")


@dataclasses.dataclass(frozen=True)
class BatchNorm(flag_fields.Config, group="Model"):
  """Of every batch norm."""

  batch_norm_decay: float = flag_fields.real(
    0.999,
    "Share of the batch-norm averages that is kept at each step, once they "
    "are warm; the first steps keep (1 + n) / (20 + n) if that is less.",
    low=0.0,
    high=0.999999,
    may_change=True,
  )


@dataclasses.dataclass(frozen=True)
class Gates(flag_fields.Config, group="NetVLAD"):
  """Of context gating, and of probability gating."""

  gating_remove_diag: bool = flag_fields.boolean(
    False,
    "No unit gates itself, in context gating and in probability gating.",
    used_if=lambda config: config.has_gates and config.has_full_gates,
  )

  @property
  def has_gates(self):
    """Whether there is gating."""
    raise NotImplementedError

  @property
  def has_full_gates(self):
    """Whether a gate has a weight for each unit, rather than a bottleneck."""
    return True


@dataclasses.dataclass(frozen=True)
class Iterations(flag_fields.Config, group="Model"):
  """How many frames of a video a model sees."""

  iterations: int = flag_fields.integer(
    30,
    "Frames of each video that the model sees; 0 for all of them.",
    low=0,
    may_change=True,
    used_if=lambda config: config.sees_iterations,
  )

  @property
  def sees_iterations(self):
    """Whether the model sees so many frames; else it sees all of them."""
    return True


@dataclasses.dataclass(frozen=True)
class Sampling(Iterations, group="Model"):
  """Which frames of a video a model sees."""

  frame_sampling: str = flag_fields.choice(
    "auto",
    ("auto", *FRAME_SAMPLINGS),
    "How frames are sampled in training: 'uniform' (evenly spread), "
    "'random_frames', 'random_sequence' (consecutive), or 'auto', which is "
    "what --sample_random_frames says. Evaluation is always uniform.",
    may_change=True,
    given_with="sample_random_frames",
    used_if=lambda config: config.iterations > 0,
  )
  sample_random_frames: bool = flag_fields.boolean(
    True,
    "Train on frames drawn at random, rather than on a random run of "
    "consecutive ones.",
    may_change=True,
    used_if=lambda config: (
      config.iterations > 0 and config.frame_sampling == "auto"
    ),
  )

  @property
  def sampling_in_training(self):
    """One of `FRAME_SAMPLINGS`."""
    if self.frame_sampling != "auto":
      return self.frame_sampling
    return "random_frames" if self.sample_random_frames else "random_sequence"


@dataclasses.dataclass(frozen=True)
class Classified(flag_fields.Config, group="Model"):
  """Of models whose descriptor of a video another model classifies."""

  video_level_classifier_model: str = flag_fields.choice(
    "MoeModel",
    lambda: registry.names(is_frame_level=False),
    "What classifies the pooled descriptor of a frame-level model.",
  )


@dataclasses.dataclass(frozen=True)
class Centres(flag_fields.Config, group="NetVLAD"):
  """Of pooling around centres."""

  netvlad_cluster_size: str = flag_fields.integers(
    "64",
    "Centres of the widest feature; the others get a part of it (half in "
    "NetVLADModelLF, else a quarter), at least 1. Or a comma list, one for "
    "each feature.",
  )

  @property
  def cluster_size(self):
    """See `pooled.SharedClustersModel`."""
    return self.netvlad_cluster_size


@dataclasses.dataclass(frozen=True)
class Gated(Gates, group="NetVLAD"):
  """Of context gating."""

  gating: bool = flag_fields.boolean(
    False, "Context gating on the hidden layer."
  )
  gating_reduction: int = flag_fields.integer(
    0,
    "Let context gates see the H units through a bottleneck of H / so many "
    "units, with ReLU: squeeze-and-excitation (Hu et al. 2018). 0 for full "
    "gates.",
    low=0,
    used_if=lambda config: config.gating,
  )

  @property
  def has_gates(self):
    """See `Gates`."""
    return self.gating

  @property
  def has_full_gates(self):
    """See `Gates`."""
    return not self.gating_reduction


@dataclasses.dataclass(frozen=True)
class Dropped(flag_fields.Config, group="NetVLAD"):
  """Of the pooled descriptor."""

  descriptor_dropout: float = flag_fields.real(
    0.0,
    "Share of the pooled descriptor that is dropped in training (Srivastava et "
    "al. 2014).",
    low=0.0,
    high=0.99,
    may_change=True,
    alias="drop_rate",
  )


@dataclasses.dataclass(frozen=True)
class Assignment(flag_fields.Config, group="NetVLAD"):
  """How frames are assigned to centres."""

  assignment: str = flag_fields.choice(
    "softmax",
    netvlad.ASSIGNMENTS,
    "How frames choose their centres: each alone by a softmax, or together by "
    "optimal transport with a dustbin, as SALAD's (Izquierdo & Civera 2024).",
  )


@dataclasses.dataclass(frozen=True)
class Normed(flag_fields.Config, group="NetVLAD"):
  """Of batch norm, all of it."""

  netvlad_add_batch_norm: bool = flag_fields.boolean(
    True,
    "Batch norm on what is pooled, on assignments, hidden layer and gates.",
  )

  @property
  def add_batch_norm(self):
    """See `AnyPooled`."""
    return self.netvlad_add_batch_norm


@dataclasses.dataclass(frozen=True)
class Hidden(Normed, group="NetVLAD"):
  """Of the layer between the pooled descriptor and the classifier."""

  netvlad_hidden_size: int = flag_fields.integer(
    1024, "Units of the hidden layer after pooling.", low=1
  )
  netvlad_relu: bool = flag_fields.boolean(
    True, "ReLU6 on the hidden layer after pooling."
  )
  netvlad_hidden_batch_norm: bool = flag_fields.boolean(
    True,
    "Batch norm on the hidden layer after pooling; else a bias, and, in models "
    "with centres or units (K of the widest feature), weights that start with "
    "a deviation of 1 / sqrt(K), as WILLOW's.",
    used_if=lambda config: config.netvlad_add_batch_norm,
  )

  @property
  def hidden(self):
    """See `AnyPooled`."""
    return hidden.Config(
      self.netvlad_hidden_size,
      self.netvlad_relu,
      self.netvlad_hidden_batch_norm,
    )


@dataclasses.dataclass(frozen=True)
class Democratic(flag_fields.Config, group="NetVLAD"):
  """Weights of frames, see `pooling.democratic`."""

  democratic_weights: bool = flag_fields.boolean(
    False,
    "Weigh frames so that each contributes alike to the descriptor (Jegou and "
    "Zisserman 2014), in NetVLAD-like and second-order models.",
  )
  democratic_gradients: bool = flag_fields.boolean(
    False,
    "Let gradients through the democratic weights.",
    used_if=lambda config: config.democratic_weights,
  )
  democratic_projection_size: int = flag_fields.integer(
    0,
    "Find the democratic weights from frames projected at random to so many "
    "dimensions, which is cheaper; 0 for all dimensions.",
    low=0,
    used_if=lambda config: config.democratic_weights,
  )

  @property
  def democratic(self):
    """`democratic.Config`."""
    return democratic.Config(
      self.democratic_weights,
      self.democratic_gradients,
      self.democratic_projection_size,
    )


def _penalty(text):
  return flag_fields.real(
    0.0,
    f"Weight of {text}; summed over the features, in the models with centres.",
    low=0.0,
    may_change=True,
    used_if=lambda config: config.has_centres,
  )


@dataclasses.dataclass(frozen=True)
class Penalties(flag_fields.Config, group="NetVLAD"):
  """What is added to the loss for centres, see `pooling.regularizers`."""

  orthogonality_penalty: float = _penalty(
    "the mean squared cosine between centres (after Brock et al. 2017), about "
    "1 / D at the start"
  )
  coding_penalty: float = _penalty(
    "FAemb's coding error, |x - sum_j a_j c_j|^2 / 2 relative to |x|^2 (Do et "
    "al. 2015), about 1/2 at the start"
  )
  locality_penalty: float = _penalty(
    "FAemb's locality, sum_j |a_j| |x - c_j|^3 relative to |x|^3 (Do et al. "
    "2015), about 1 at the start"
  )

  @property
  def has_centres(self):
    """Whether the model subtracts centres."""
    return True

  @property
  def penalties(self):
    """`regularizers.Weights`."""
    return regularizers.Weights(
      orthogonality=self.orthogonality_penalty,
      coding=self.coding_penalty,
      locality=self.locality_penalty,
    )


@dataclasses.dataclass(frozen=True)
class AnyPooled(Dropped, Classified, Sampling, BatchNorm, group="Model"):
  """Of every `pooled.PooledModel`, whatever its own flags are called."""

  temporal_parts: int = flag_fields.integer(
    1,
    "Cut each video in time into so many parts, and pool each with weights of "
    "its own (NetVLAD++ has 2, each with half of the centres). Frames drawn at "
    "random are then sorted.",
    low=1,
  )

  @property
  def add_batch_norm(self):
    """Whether there is batch norm anywhere."""
    raise NotImplementedError

  @property
  def hidden(self):
    """`hidden.Config` of the layer before the classifier; None for none."""
    raise NotImplementedError

  @property
  def has_gates(self):
    """Whether there is context gating, which needs `Gated`."""
    return False


@dataclasses.dataclass(frozen=True)
class Pooled(Gated, Hidden, AnyPooled):
  """Of the models with NetVLAD's hidden layer and context gating."""


@dataclasses.dataclass(frozen=True)
class AnyClustered(Penalties, Democratic, AnyPooled):
  """Of every `pooled.ClusteredModel`."""


@dataclasses.dataclass(frozen=True)
class Clustered(Centres, Assignment, Pooled, AnyClustered):
  """Of the models around centres with NetVLAD's flags."""


@dataclasses.dataclass(frozen=True)
class Paper(Clustered):
  """The defaults of the paper, section 4.1, and of its authors' code."""

  iterations: int = 256
  frame_sampling: str = "uniform"
  netvlad_relu: bool = False
  gating: bool = True


@dataclasses.dataclass(frozen=True)
class Heads(flag_fields.Config, group="Transformer"):
  """Of attention."""

  transformer_head_size: int = flag_fields.integer(
    16,
    "Dimensions of an attention head; a feature of size D has D // head size "
    "heads.",
    low=1,
  )
  attention_memory_mb: int = flag_fields.integer(
    0,
    "MB for the weights of attention, forward and backward: as many videos as "
    "fit are attended to at a time, one at least. It changes no result but "
    "which weights --attention_dropout drops. 0 for 64 on a CPU, 1024 where "
    "there is a GPU.",
    low=0,
    may_change=True,
  )


@dataclasses.dataclass(frozen=True)
class FeedForward(flag_fields.Config, group="Transformer"):
  """Of what follows attention."""

  transformer_feed_forward_factor: int = flag_fields.integer(
    4,
    "Inner units of an encoder's feed-forward part, over the feature's size.",
    low=1,
  )


@dataclasses.dataclass(frozen=True)
class Encoder(FeedForward, Heads, group="Transformer"):
  """Of a Transformer encoder, see `pooling.transformer`."""

  transformer_dropout: float = flag_fields.real(
    0.1,
    "Share of what attention and feed-forward part add to their residuals that "
    "is dropped in training.",
    low=0.0,
    high=0.99,
    may_change=True,
  )
  attention_dropout: float = flag_fields.real(
    0.0,
    "Share of the attention weights that is dropped in training.",
    low=0.0,
    high=0.99,
    may_change=True,
  )
  attention_batch_norm: str = flag_fields.choice(
    "projections",
    transformer.BATCH_NORMS,
    "Batch norm inside the attention block: of queries, keys, values and "
    "output, of the logits, or none.",
  )
  transformer_residual: str = flag_fields.choice(
    "post_norm",
    transformer.RESIDUALS,
    "How an encoder adds to its input. zero_init: through gains that start at "
    "0, normalised before, so that training begins without the encoders' "
    "noise (Goyal et al. 2017; Bachlechner et al. 2020). post_norm: as "
    "published (Vaswani et al. 2017), which learns far worse here.",
  )

  @property
  def encoder(self):
    """`transformer.Config`."""
    return transformer.Config(
      head_size=self.transformer_head_size,
      feed_forward_factor=self.transformer_feed_forward_factor,
      dropout=self.transformer_dropout,
      attention_dropout=self.attention_dropout,
      batch_norm=self.attention_batch_norm,
      residual=self.transformer_residual,
      memory_mb=self.attention_memory_mb,
    )
