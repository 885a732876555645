"""A chain of classifiers of one vector a video.

Axes: B videos, D features, C classes, L links, R units of a link.
"""

import dataclasses

import tensorflow.compat.v1 as tf

from console import flag_fields
from models import registry, video_level
from pooling import linear


@registry.register(aliases=("DeepCombineChainModel",))
class ChainMoeModel(video_level.MoeModel):
  """Mixtures of experts, each of which sees what those before it predict.

  The deep combine chain of the second place of the first YouTube-8M challenge
  (Wang, Zhang & Wu 2017, arXiv:1706.05150): with u_0 = x, for l = 0, ..., L - 1

    p_l = MoE_l(u_l),
    r_l = relu(p_l W_l + b_l), scaled to unit length,
    u_{l+1} = [u_l, r_l],

  and the prediction is p = MoE(u_L), so that classes can be told from other
  classes. All predictions are trained, with a share s of the support loss:
  (1 - s) loss(p) + s sum_l loss(p_l).
  """

  @dataclasses.dataclass(frozen=True)
  class Config(video_level.MoeModel.Config, group="Chain of classifiers"):
    """The flags; published with 8 links of 128 units."""

    deep_chain_layers: int = flag_fields.integer(
      3, "Classifiers before the last one in ChainMoeModel.", low=0
    )
    deep_chain_relu_cells: int = flag_fields.integer(
      128, "Units that ChainMoeModel makes of each classifier's output.", low=1
    )
    multitask: bool = flag_fields.boolean(
      True,
      "Train what the classifiers before the last one predict, too.",
      may_change=True,
    )
    support_loss_percent: float = flag_fields.real(
      0.025,
      "Share of the loss (of 1, not of 100) that the classifiers before the "
      "last one have, each.",
      low=0.0,
      high=1.0,
      may_change=True,
      used_if=lambda config: config.multitask,
    )
    support_type: str = flag_fields.text(
      "label",
      "What the classifiers before the last one learn: 'label', said once or, "
      "as in published commands, for each.",
      may_change=True,
      used_if=lambda config: config.multitask,
    )

    def __post_init__(self):
      super().__post_init__()
      kinds = flag_fields.parse_names(self.support_type)
      if {*kinds} != {"label"} or len(kinds) not in (1, self.deep_chain_layers):
        raise ValueError(
          "--support_type is 'label', once or --deep_chain_layers="
          f"{self.deep_chain_layers} times, got {self.support_type!r}."
        )

    @property
    def support_types(self):
      """What each classifier before the last one learns."""
      kinds = flag_fields.parse_names(self.support_type)
      return kinds if len(kinds) > 1 else kinds * self.deep_chain_layers

  def create_model(
    self,
    model_input,
    vocab_size,
    num_frames=None,
    is_training=True,
    **unused_params,
  ):
    """See `BaseModel.create_model`."""
    del num_frames
    config = self.config

    def predict(inputs, scope):
      with tf.variable_scope(scope):
        moe = super(ChainMoeModel, self).create_model(
          inputs, vocab_size, is_training=is_training
        )
      return moe["predictions"]

    inputs, supports = model_input, []
    for link in range(config.deep_chain_layers):
      supports.append(predict(inputs, f"link{link}"))
      units = linear.penalised(
        supports[-1],
        config.deep_chain_relu_cells,
        l2=config.moe_l2,
        scope=f"link{link}_units",
      )
      units = tf.nn.l2_normalize(tf.nn.relu(units), axis=1)
      inputs = tf.concat([inputs, units], axis=1)
    result = {"predictions": predict(inputs, "main")}
    if config.multitask and supports:
      share = config.support_loss_percent
      result["prediction_weight"] = 1.0 - share
      result["auxiliary_predictions"] = [
        (share, predictions)
        for predictions, kind in zip(supports, config.support_types)
        if kind == "label"
      ]
    return result
