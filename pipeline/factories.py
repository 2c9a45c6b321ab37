"""Calling the user's own code: a `module:function` that a config names, found, called, and blamed clearly.

Only a user's own run or student file leads here. A name that a store contains is never imported.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.machinery
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, cast

from pydantic import AfterValidator

from softcask.storage_schemas.errors import ConfigError, FactoryError

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_TARGET = re.compile(f"{_NAME}:{_NAME}")
_MAX_NAMES = 8


def _check_target(target: str) -> str:
    if not _TARGET.fullmatch(target):
        raise ConfigError(f"expected 'module:function', such as 'models:small_cnn', found {target!r}")
    return target


FactoryTarget = Annotated[str, AfterValidator(_check_target)]
"""A `module:function` (dots allowed on both sides) in a config; importing it is left to `resolve`."""


def add_to_path(folders: Iterable[str]) -> None:
    """Put folders at the front of `sys.path`, in this order, and leave them there.

    They stay because a factory may import more of itself later. Every process that builds a teacher or a
    student calls this first; calling it again changes nothing.
    """
    wanted = list(dict.fromkeys(str(Path(folder).expanduser().absolute()) for folder in folders))
    if sys.path[: len(wanted)] != wanted:
        sys.path[:] = [*wanted, *(entry for entry in sys.path if entry not in wanted)]
        importlib.invalidate_caches()


def resolve(target: str, python_path: Sequence[str] = ()) -> Callable[..., Any]:
    """The callable that `module:function` names.

    Args:
        target: `module:function`; the function may be a dotted attribute (`models:Net.small`).
        python_path: Folders to look in first, besides what `add_to_path` has put on `sys.path`.

    Raises:
        FactoryError: The module is missing, raises while it is imported or was already imported from another
            place; or the attribute is missing or cannot be called.
    """
    add_to_path(python_path)
    try:
        module_name, _, attribute = _check_target(target).partition(":")
    except ConfigError as error:
        raise FactoryError(f"cannot find the factory: {error}") from error
    found = _attribute(_import(module_name, target), attribute, target)
    if not callable(found):
        raise FactoryError(f"factory {target!r} is a {type(found).__name__}, not a function or class")
    return cast(Callable[..., Any], found)


def call(
    target: str, kwargs: Mapping[str, Any], python_path: Sequence[str] = (), what: str = "factory"
) -> Any:
    """Build what `target` makes of `kwargs`.

    Args:
        target: `module:function`, see `resolve`.
        kwargs: Keyword arguments of the function, as the config gives them.
        python_path: See `resolve`.
        what: Whom the factory works for, to begin the message with ("teacher 'cnn'").

    Raises:
        FactoryError: It cannot be resolved, or raised; the original error is the cause.
    """
    try:
        function = resolve(target, python_path)
    except FactoryError as error:
        raise FactoryError(f"{what}: {error}") from error.__cause__
    try:
        return function(**kwargs)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
        message = f"{what}: factory {target}({given}) raised {_described(error)}"
        if isinstance(error, TypeError):
            message += f"; its signature is {target}{_signature(function)}"
        raise FactoryError(message) from error


def find_source(target: str) -> Path | None:
    """The source file of the module that `target` names, found without importing it or its packages.

    None where there is none to read: a missing module, a compiled one, one inside a zip file.
    """
    top, *rest = target.partition(":")[0].split(".")
    spec = _find_top(top)
    if spec is None:
        return None
    if not rest:
        candidates = [Path(spec.origin)] if spec.has_location and spec.origin else []
    else:
        stems = [Path(folder, *rest) for folder in spec.submodule_search_locations or ()]
        candidates = [path for stem in stems for path in (stem / "__init__.py", Path(f"{stem}.py"))]
    return next((path for path in candidates if path.suffix == ".py" and path.is_file()), None)


def _find_top(name: str) -> importlib.machinery.ModuleSpec | None:
    # importlib.util.find_spec would answer with what has been imported under this name, whatever it was.
    specs = (finder.find_spec(name, None, None) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def _import(module_name: str, target: str) -> ModuleType:
    _refuse_namesake(module_name, target)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise FactoryError(
                f"factory {target!r}: its module imports {error.name!r}, which is not installed here "
                f"({_described(error)})"
            ) from error
        raise FactoryError(
            f"factory {target!r}: there is no module {error.name!r}; looked in {_looked_in()}. "
            "Is the folder that holds it in the config's python_path?"
        ) from error
    except (Exception, SystemExit) as error:
        raise FactoryError(
            f"factory {target!r}: importing {module_name!r} raised {_described(error)}"
        ) from error


def _refuse_namesake(module_name: str, target: str) -> None:
    # Python would silently answer with the module imported first: another project's models, other logits.
    top = module_name.partition(".")[0]
    loaded = getattr(getattr(sys.modules.get(top), "__spec__", None), "origin", None)
    spec = _find_top(top) if loaded else None
    found = spec.origin if spec is not None and spec.has_location else None
    if loaded and found and Path(loaded).exists() and Path(loaded).resolve() != Path(found).resolve():
        raise FactoryError(
            f"factory {target!r}: it stands in {found}, but this process has already imported another module "
            f"{top!r} from {loaded}. Rename one of them, or start a new process"
        )


def _attribute(module: ModuleType, attribute: str, target: str) -> Any:
    found: Any = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            where = getattr(module, "__file__", None) or "its module"
            raise FactoryError(f"factory {target!r}: {where} has no {name!r}{_suggestion(found, name)}")
        found = getattr(found, name)
    return found


def _suggestion(owner: Any, name: str) -> str:
    names = (each for each in dir(owner) if not each.startswith("_"))
    public = [each for each in names if callable(getattr(owner, each, None))]
    if close := difflib.get_close_matches(name, public, n=3):
        return f"; did you mean {' or '.join(map(repr, close))}?"
    more = ", ..." if len(public) > _MAX_NAMES else ""
    return f"; it has {', '.join(public[:_MAX_NAMES])}{more}" if public else "; it has no public function"


def _looked_in() -> str:
    paths = {name: Path(path) for name, path in sysconfig.get_paths().items()}
    installed = {paths["stdlib"].parent, paths["platstdlib"].parent, paths["purelib"], paths["platlib"]}
    folders = [
        entry or "." for entry in sys.path if installed.isdisjoint({Path(entry), *Path(entry).parents})
    ]
    folders = [each if Path(each).exists() else f"{each} (which does not exist)" for each in folders]
    return ", ".join([*folders, "the installed packages"])


def _described(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{text} (at {outside[-1].filename}:{outside[-1].lineno})" if outside else text


def _signature(function: Callable[..., Any]) -> str:
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(...)"
