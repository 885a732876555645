"""Every video-level model, by the starter code's module name."""

from models import registry

__all__ = registry.names(is_frame_level=False)
globals().update({name: registry.get(name) for name in __all__})
