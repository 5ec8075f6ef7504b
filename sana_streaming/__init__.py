"""Live video editing by instruction."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

__all__ = ["Editor", "Session", "__version__"]

_HOMES = {"Editor": "sana_streaming.stream.editor", "Session": "sana_streaming.stream.session"}


def __getattr__(name: str) -> Any:
    """Loaded on first use, so that `sana-streaming --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sana_streaming' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
