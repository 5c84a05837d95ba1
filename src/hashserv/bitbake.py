"""The exceptions of `bb.asyncrpc`, without the rest of BitBake, which takes long to import.

They are in a module that needs no other. Where BitBake is not loaded yet, that module alone is
loaded from its file. If BitBake is imported after all, it gets the same one, so that its code
catches what ours raises.
"""

import importlib
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Final

_MODULE: Final = "bb.asyncrpc.exceptions"
_NAMES: Final = ("ClientError", "ConnectionClosedError", "InvokeError", "ServerError")


def exceptions() -> ModuleType | None:
    """Return a module that has BitBake's exceptions; `None` where it can't be imported."""
    if "bb" not in sys.modules and (module := _alone()) is not None:
        return module
    try:
        module = importlib.import_module("bb.asyncrpc")
    except ImportError:
        return None
    return module if _is_complete(module) else None


def _alone() -> ModuleType | None:
    """Load the module of the exceptions; `None` where BitBake has none, or it needs the rest."""
    bb = importlib.util.find_spec("bb")
    places = [] if bb is None else bb.submodule_search_locations or []
    spec = PathFinder.find_spec(_MODULE, [os.path.join(place, "asyncrpc") for place in places])
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if "bb" in sys.modules or not _is_complete(module):
        return None
    sys.meta_path.insert(0, _Loaded(module))
    return module


def _is_complete(module: ModuleType) -> bool:
    return all(hasattr(module, name) for name in _NAMES)


class _Loaded(SourceFileLoader):
    """Finds a module that is loaded already, for an import of its package that comes later.

    In `sys.modules` it would be found, too, but not become an attribute of its package.
    """

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__, str(module.__file__))
        self._module = module

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(name, self, origin=self.path) if name == self.name else None

    def create_module(self, *_: object) -> ModuleType:
        return self._module

    def exec_module(self, *_: object) -> None:
        """Do nothing: that was done when it was loaded."""
