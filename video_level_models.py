"""Every video-level model, by the starter code's module name."""

from models.chain_moe import ChainMoeModel
from models.video_level import LogisticModel, MoeModel

__all__ = ["ChainMoeModel", "LogisticModel", "MoeModel"]
