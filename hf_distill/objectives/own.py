"""A class of the user's own, named ``module:Name``: importable as usual, or a file of the current folder.

Knows: modules, folders. Does not know: what the class is for.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

_loaded: dict[tuple[Path, str], ModuleType] = {}


def import_own(path: str, kind: type) -> type:
    """Import a class by its module and its name.

    A command or a script in another folder does not look into the current one, and has modules of its own that may
    have the name of a user's. So where the usual import gives no such class, the current folder is asked, and its
    modules see each other and not those that stand beside the script.

    Args:
        path: ``module:Name``.
        kind: what the class must extend.

    Returns:
        The class.

    Raises:
        ValueError: there is none, or its module cannot be run.

    Example:
        >>> import_own("collections:OrderedDict", dict)
        <class 'collections.OrderedDict'>
    """
    module, _, name = path.partition(":")
    found, failed = _tried(module, name)
    if not _is_kind(found, kind) and module and _is_here(module.partition(".")[0]):
        found, failed = _tried(module, name, Path.cwd())
    if failed is not None:
        raise ValueError(
            f"objective {path!r} could not be imported ({failed}): write 'module:Name' of an importable Term, or of "
            "one in a file of the current folder."
        ) from failed
    if not _is_kind(found, kind):
        raise ValueError(f"objective {path!r} is not a subclass of hf_distill.{kind.__name__}: make it one.")
    return found


def _tried(module: str, name: str, folder: Path | None = None) -> tuple[Any, Exception | None]:
    try:
        return getattr(importlib.import_module(module) if folder is None else _from(folder, module), name), None
    except Exception as error:  # a user's module may raise anything
        return None, error


def _from(folder: Path, module: str) -> ModuleType:
    if (folder, module) not in _loaded:
        with _first(folder, module.partition(".")[0]):
            importlib.invalidate_caches()
            _loaded[folder, module] = importlib.import_module(module)
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # for what its functions import when they are called
    return _loaded[folder, module]


@contextmanager
def _first(folder: Path, top: str) -> Iterator[None]:
    """Look into a folder first, as if what it shadows had not been imported; afterwards that is as it was."""
    hidden = {
        name: one
        for name, one in sys.modules.items()
        if (root := name.partition(".")[0]) == top or (_is_here(root) and _is_beside_a_script(sys.modules.get(root)))
    }
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.update(hidden)


def _is_here(top: str) -> bool:
    return Path(f"{top}.py").is_file() or Path(top).is_dir()


def _is_beside_a_script(module: ModuleType | None) -> bool:
    """Whether a module is a file of a folder that is neither Python's own nor one for packages."""
    file = getattr(module, "__file__", None)
    folders = {Path(folder) for folder in sysconfig.get_paths().values()}
    return file is not None and Path(file).parent not in {*folders, Path.cwd()} and Path(file).name != "__init__.py"


def _is_kind(found: Any, kind: type) -> bool:
    return isinstance(found, type) and issubclass(found, kind)
