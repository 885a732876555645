"""Every video-level model, by the starter code's module name."""

from models.video_level import LogisticModel, MoeModel

__all__ = ["LogisticModel", "MoeModel"]
