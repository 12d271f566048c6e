"""Deep generative models, what it takes to train them and what it takes to judge them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .persistence import load as load
    from .persistence import save as save

__all__ = ["load", "save"]


def __getattr__(name: str) -> Any:
    # torch is imported only when a model is wanted, so that the command line answers --help at once
    if name in __all__:
        from . import persistence

        return getattr(persistence, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
