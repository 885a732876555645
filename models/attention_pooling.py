"""Attention pooling, as frozen features are classified today.

Features are not pooled one by one: a frame of all of them together is a token.
Nothing stands between the pooling and the classifier, by default a logistic
regression, as in a probe. Axes: B videos, T frames, D features of all kinds.
"""

import dataclasses

import tensorflow.compat.v1 as tf

from console import flag_fields
from models import configs, pooled, registry
from pooling import attention_pooling as attention
from pooling import transformer
from pooling.affine_frames import formed


@dataclasses.dataclass(frozen=True)
class Attention(configs.Heads, group="Attention"):
  """Of learnt queries."""

  attention_size: int = flag_fields.integer(
    128,
    "Dimensions of all heads of attention pooling together; a multiple of "
    "--transformer_head_size.",
    low=1,
  )
  attention_queries: int = flag_fields.integer(
    1, "Learnt queries of attention pooling (of each layer).", low=1
  )

  @property
  def attention(self):
    """`attention_pooling.Config`."""
    return attention.Config(
      self.attention_size,
      self.transformer_head_size,
      memory_mb=self.attention_memory_mb,
    )


@dataclasses.dataclass(frozen=True)
class Probe(Attention, configs.AnyPooled, group="Attention"):
  """Of models without a hidden layer."""

  video_level_classifier_model: str = "LogisticModel"
  attention_input_batch_norm: bool = flag_fields.boolean(
    True, "Batch norm on the input of PmaModel and AttentiveProbeModel."
  )

  @property
  def add_batch_norm(self):
    """See `configs.AnyPooled`."""
    return self.attention_input_batch_norm

  @property
  def hidden(self):
    """See `configs.AnyPooled`."""
    return None


class TokensModel(pooled.PooledModel):
  """What the models share whose tokens are whole frames."""

  def __init__(self, config=None, **kwargs):
    """See `PooledModel`.

    Raises:
      ValueError: a size that is no multiple of the heads'.
    """
    super().__init__(config, **kwargs)
    self.attention = self.config.attention

  def _pool_features(self, frames, mask, mode, penalties):
    """See `PooledModel`; there is no penalty."""
    del penalties
    return [self._pool(frames, mask, "frames", mode)[0]]


@registry.register()
class PmaModel(TokensModel):
  """Set Transformer (Lee et al. 2019): ISABs, PMA, SABs."""

  @dataclasses.dataclass(frozen=True)
  class Config(Probe, group="Attention"):
    """The flags, with the defaults of the authors' code."""

    transformer_head_size: int = 32
    pma_inducing_points: int = flag_fields.integer(
      32, "Inducing points of PmaModel's blocks over frames.", low=1
    )
    pma_frame_blocks: int = flag_fields.integer(
      2, "PmaModel's blocks over frames (ISAB), before its seeds.", low=0
    )
    pma_seed_blocks: int = flag_fields.integer(
      2, "PmaModel's blocks over what its seeds found (SAB).", low=0
    )
    pma_layer_norm: bool = flag_fields.boolean(
      True, "Layer normalisation in PmaModel's blocks."
    )
    pma_scale: str = flag_fields.choice(
      "width",
      attention.SCALES,
      "Whether PmaModel divides logits by the root of --attention_size, as "
      "published, or of --transformer_head_size.",
    )

    @property
    def attention(self):
      """`attention_pooling.Config`."""
      return dataclasses.replace(
        super().attention, scale=self.pma_scale, layer_norm=self.pma_layer_norm
      )

  def _pool(self, frames, mask, name, mode):
    del name
    config = self.config
    kwargs = {"config": self.attention, "mode": mode}
    tokens = attention.Tokens(formed(frames), mask)
    for i in range(config.pma_frame_blocks):
      tokens = attention.induced_block(
        tokens, config.pma_inducing_points, scope=f"induced{i}", **kwargs
      )
    tokens = attention.pooled_by_attention(
      tokens, config.attention_queries, **kwargs
    )
    for i in range(config.pma_seed_blocks):
      tokens = attention.attention_block(
        tokens, tokens, scope=f"seeds{i}", **kwargs
      )
    return attention.flat(tokens), []


@registry.register()
class AttentiveProbeModel(TokensModel):
  """One block of cross-attention from a learnt query (V-JEPA's probe)."""

  @dataclasses.dataclass(frozen=True)
  class Config(Probe, configs.FeedForward, group="Attention"):
    """The flags, with the defaults of the authors' code."""

    attention_size: int = 768
    transformer_head_size: int = 64
    probe_layer_norm: bool = flag_fields.boolean(
      True, "Layer normalisation of what AttentiveProbeModel's block returns."
    )

    @property
    def attention(self):
      """`attention_pooling.Config`."""
      return dataclasses.replace(
        super().attention,
        layer_norm=self.probe_layer_norm,
        feed_forward_factor=self.transformer_feed_forward_factor,
      )

  def _pool(self, frames, mask, name, mode):
    del name
    kwargs = {"config": self.attention, "mode": mode}
    tokens = attention.project(
      attention.Tokens(formed(frames), mask), self.attention.size, mode=mode
    )
    tokens = attention.attentive_probe(
      tokens, self.config.attention_queries, **kwargs
    )
    return attention.flat(tokens), []


@registry.register()
class BoqModel(TokensModel):
  """Bag of queries (Ali-bey, Chaib-draa, Giguere 2024)."""

  @dataclasses.dataclass(frozen=True)
  class Config(Attention, configs.Encoder, configs.Pooled, group="Attention"):
    """The flags, with the defaults of the authors' code."""

    attention_size: int = 512
    attention_queries: int = 64
    transformer_head_size: int = 64
    transformer_dropout: float = 0.0
    attention_batch_norm: str = "none"
    transformer_residual: str = "zero_init"
    boq_layers: int = flag_fields.integer(
      2, "BoqModel's layers, each an encoder and a bag of queries.", low=1
    )
    boq_row_size: int = flag_fields.integer(
      32, "What BoqModel maps the queries of all layers to.", low=1
    )

  def _pool(self, frames, mask, name, mode):
    del name
    kwargs = {"config": self.attention, "mode": mode}
    tokens = attention.project(
      attention.Tokens(formed(frames), mask), self.attention.size, mode=mode
    )
    values = transformer.layer_norm(tokens.values, scope="input_norm")
    bags = []
    for i in range(self.config.boq_layers):
      values = transformer.encoder(
        values, mask, config=self.config.encoder, mode=mode, scope=f"encoder{i}"
      )
      bags.append(
        attention.bag_of_queries(
          attention.Tokens(values, mask),
          self.config.attention_queries,
          scope=f"queries{i}",
          **kwargs,
        )
      )
    return attention.mixed_queries(
      attention.Tokens(
        tf.concat([bag.values for bag in bags], axis=1), bags[0].mask
      ),
      self.config.boq_row_size,
      mode=mode,
    ), []
