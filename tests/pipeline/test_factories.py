from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import TypeAdapter, ValidationError

from softcask.pipeline.factories import FactoryTarget, add_to_path, call, find_source, resolve
from softcask.storage_schemas.errors import FactoryError

SOURCE = """
WIDTH = 3

def small_cnn(width, depth=2):
    return ("cnn", width, depth)

def broken(width):
    return {}["missing"]

def leaving():
    raise SystemExit(3)

class Net:
    @classmethod
    def small(cls):
        return "small"

def _hidden():
    return None
"""

Write = Callable[[str, str], str]


@pytest.fixture(autouse=True)
def same_path_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "toy_models.py").write_text(SOURCE)
    # Set first, so that what is imported meanwhile is forgotten afterwards, whatever was there before.
    monkeypatch.setitem(sys.modules, "toy_models", ModuleType("toy_models"))
    monkeypatch.delitem(sys.modules, "toy_models")
    return str(tmp_path)


def refused(target: str, folder: str) -> str:
    with pytest.raises(FactoryError) as caught:
        resolve(target, [folder])
    return str(caught.value)


def test_a_function_is_found_in_the_given_folders_and_called(toy: str) -> None:
    assert resolve("toy_models:small_cnn", [toy])(1) == ("cnn", 1, 2)
    assert call("toy_models:small_cnn", {"width": 8, "depth": 1}, [toy]) == ("cnn", 8, 1)
    assert call("toy_models:Net.small", {}, [toy]) == "small"


def test_folders_stay_in_front_in_their_order_and_once(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    before = list(sys.path)
    for _ in range(3):
        add_to_path([one, two, one])
        assert sys.path == [one, two, *before]
    add_to_path([two])
    assert sys.path == [two, one, *before]


def test_a_relative_folder_is_added_as_it_is_meant_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    add_to_path(["models"])
    assert sys.path[0] == str(tmp_path / "models")


def test_a_module_that_is_not_there_says_where_it_was_looked_for(toy: str, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    add_to_path([nowhere])
    message = refused("toy_modles:small_cnn", toy)
    assert message.startswith("factory 'toy_modles:small_cnn': there is no module 'toy_modles'; looked in ")
    assert f"looked in {toy}, {nowhere} (which does not exist), " in message
    assert "Is the folder that holds it in the config's python_path?" in message
    assert "/lib/python" not in message


def test_a_missing_submodule_is_not_taken_for_its_package(toy: str) -> None:
    (Path(toy) / "toy_package").mkdir()
    (Path(toy) / "toy_package" / "__init__.py").touch()
    assert "there is no module 'toy_package.nets'" in refused("toy_package.nets:f", toy)


def test_a_module_whose_own_import_is_missing_is_not_called_missing(toy: str) -> None:
    path = Path(toy, "toy_needy.py")
    path.write_text("\nimport toy_not_installed\n")
    with pytest.raises(FactoryError) as caught:
        resolve("toy_needy:f", [toy])
    assert "its module imports 'toy_not_installed', which is not installed here" in str(caught.value)
    assert f"(at {path}:2)" in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("name", "source", "part"),
    [
        ("toy_raises", "x = 1\nx / 0\n", "raised ZeroDivisionError: division by zero (at {path}:2)"),
        ("toy_syntax", "def f(:\n", "raised SyntaxError: invalid syntax (toy_syntax.py, line 1)"),
        ("toy_exits", "import sys\nsys.exit(0)\n", "raised SystemExit: 0 (at {path}:2)"),
    ],
)
def test_a_module_that_raises_when_imported_says_what_and_where(
    name: str, source: str, part: str, toy: str
) -> None:
    path = Path(toy, f"{name}.py")
    path.write_text(source)
    message = refused(f"{name}:f", toy)
    assert f"factory '{name}:f': importing '{name}' " + part.format(path=path) in message


def test_a_misspelt_function_brings_up_the_likely_ones(toy: str) -> None:
    message = refused("toy_models:smal_cnn", toy)
    assert message == (
        f"factory 'toy_models:smal_cnn': {toy}/toy_models.py has no 'smal_cnn'; did you mean 'small_cnn'?"
    )
    assert refused("toy_models:zzz", toy).endswith("has no 'zzz'; it has Net, broken, leaving, small_cnn")
    assert "has no 'smal'; did you mean 'small'?" in refused("toy_models:Net.smal", toy)


def test_what_cannot_be_called_is_refused(toy: str) -> None:
    assert refused("toy_models:WIDTH", toy) == "factory 'toy_models:WIDTH' is a int, not a function or class"


def test_wrong_arguments_bring_up_the_signature(toy: str) -> None:
    with pytest.raises(FactoryError) as caught:
        call("toy_models:small_cnn", {"widht": 3}, [toy], "teacher 'a'")
    message = str(caught.value)
    assert message.startswith("teacher 'a': factory toy_models:small_cnn(widht=3) raised TypeError: ")
    assert message.endswith("; its signature is toy_models:small_cnn(width, depth=2)")
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_factory_that_raises_says_what_and_where(toy: str) -> None:
    with pytest.raises(FactoryError) as caught:
        call("toy_models:broken", {"width": 1}, [toy], "student")
    assert str(caught.value) == (
        f"student: factory toy_models:broken(width=1) raised KeyError: 'missing' (at {toy}/toy_models.py:8)"
    )
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(FactoryError, match="raised SystemExit: 3"):
        call("toy_models:leaving", {}, [toy])


def test_whom_a_missing_factory_was_for_is_said_too(toy: str) -> None:
    with pytest.raises(FactoryError, match=r"^teacher 'a': factory 'toy_models:nope': ") as caught:
        call("toy_models:nope", {}, [toy], "teacher 'a'")
    assert not isinstance(caught.value.__cause__, FactoryError)


def test_a_namesake_that_was_imported_before_is_not_used_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for project in ("one", "other"):
        (tmp_path / project).mkdir()
        (tmp_path / project / "toy_namesake.py").write_text(f"def f():\n    return {project!r}\n")
    assert call("toy_namesake:f", {}, [str(tmp_path / "one")]) == "one"
    message = refused("toy_namesake:f", str(tmp_path / "other"))
    assert f"it stands in {tmp_path}/other/toy_namesake.py" in message
    assert f"from {tmp_path}/one/toy_namesake.py" in message and "start a new process" in message
    assert call("toy_namesake:f", {}, [str(tmp_path / "one")]) == "one"
    monkeypatch.delitem(sys.modules, "toy_namesake")
    assert call("toy_namesake:f", {}, [str(tmp_path / "other")]) == "other"


def test_a_module_is_reached_by_two_ways_to_the_same_file(toy: str, tmp_path: Path) -> None:
    assert call("toy_models:small_cnn", {"width": 1}, [toy])
    link = tmp_path / "link"
    link.symlink_to(toy, target_is_directory=True)
    assert call("toy_models:small_cnn", {"width": 1}, [str(link)])


@pytest.mark.parametrize(
    "target", ["json:dumps", "os.path:join", "math:sqrt", "collections:OrderedDict.fromkeys"]
)
def test_what_is_installed_is_found_as_well(target: str) -> None:
    assert callable(resolve(target))


@pytest.mark.parametrize(
    "target", ["models", "models.f", "models:", ":f", "a/b:f", "a:f()", "a:b:c", "a :f", "1a:f"]
)
def test_a_target_that_is_none_is_refused_with_an_example(target: str) -> None:
    with pytest.raises(ValidationError, match="expected 'module:function', such as 'models:small_cnn'"):
        TypeAdapter(FactoryTarget).validate_python(target)
    with pytest.raises(FactoryError, match="expected 'module:function'"):
        resolve(target)


@pytest.mark.parametrize("target", ["models:f", "a.b.c:D.e", "größe:länge", "_m:_f"])
def test_a_target_may_have_dots_and_any_identifier(target: str) -> None:
    assert TypeAdapter(FactoryTarget).validate_python(target) == target


def test_sources_are_found_without_running_their_packages(toy: str) -> None:
    package = Path(toy, "toy_loud")
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('was run')\n")
    (package / "inner" / "nets.py").touch()
    add_to_path([toy])
    assert find_source("toy_loud.inner.nets:f") == package / "inner" / "nets.py"
    assert find_source("toy_loud:f") == package / "__init__.py"
    assert not any(name.startswith("toy_loud") for name in sys.modules)


@pytest.mark.parametrize(
    "target", ["toy_absent:f", "toy_absent.more:f", "sys:exit", "numpy._core._multiarray_umath:f"]
)
def test_what_has_no_source_has_none(target: str) -> None:
    assert find_source(target) is None
