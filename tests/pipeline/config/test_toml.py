from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from softcask.pipeline.config.toml import load_toml, parse_overrides
from softcask.pipeline.parts import Options, ResolvedPath
from softcask.storage_schemas.errors import ConfigError

Written = Callable[[str], Path]


class Crop(Options):
    size: int = Field(ge=1)
    mode: Literal["nearest", "bilinear"] = "nearest"


class Recipe(Options):
    name: str = "x"
    data: ResolvedPath = "."
    crops: tuple[Crop, ...] = ()
    best: Crop | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return path

    return write


def problems(path: Path, overrides: dict[str, Any] | None = None) -> list[str]:
    """The lines of the error without the folder."""
    with pytest.raises(ConfigError) as error:
        load_toml(path, Recipe, overrides=overrides)
    return [line.strip().replace(f"{path.parent}/", "") for line in str(error.value).splitlines()]


def test_a_valid_file_becomes_its_model_with_paths_from_its_own_folder(
    written: Written, tmp_path: Path
) -> None:
    recipe = load_toml(written("name = 'é'\ndata = 'rows/x'\ncrops = [{size = 3}]"), Recipe)
    assert recipe == Recipe(name="é", data=str(tmp_path / "rows/x"), crops=(Crop(size=3),))
    assert load_toml(written("data = 's3://bucket/x'"), Recipe).data == "s3://bucket/x"
    assert load_toml(written(""), Recipe).data == str(tmp_path)


def test_every_problem_is_told_at_once_with_its_line_in_the_order_of_the_file(written: Written) -> None:
    path = written(
        """name = 3
crop = 1

[[crops]]
size = 1
mode = "linear"

[[crops]]
mode = "nearest"
szie = 4

[best]
size = 0
""",
    )
    assert problems(path) == [
        "recipe.toml is not valid, 6 problems:",
        "recipe.toml:1: name: input should be a valid string, found 3",
        "recipe.toml:2: crop: unknown key; did you mean 'crops'? known keys: name, data, crops, best, extra",
        "recipe.toml:6: crops[0].mode: input should be 'nearest' or 'bilinear', found 'linear'",
        "recipe.toml:8: crops[1].size: field required",
        "recipe.toml:10: crops[1].szie: unknown key; did you mean 'size'? known keys: size, mode",
        "recipe.toml:13: best.size: input should be greater than or equal to 1, found 0",
    ]


def test_inline_tables_and_dotted_keys_have_their_lines(written: Written) -> None:
    path = written('# first\ncrops = [\n  {size = 1},\n  {size = "a", zoom = 2},\n]\nbest.size = 0\n')
    assert problems(path)[1:] == [
        "recipe.toml:4: crops[1].size: input should be a valid integer, "
        "unable to parse string as an integer, found 'a'",
        "recipe.toml:4: crops[1].zoom: unknown key; known keys: size, mode",
        "recipe.toml:6: best.size: input should be greater than or equal to 1, found 0",
    ]


def test_a_long_value_is_cut(written: Written) -> None:
    (told,) = problems(written(f"best = '{'x' * 500}'"))[1:]
    assert "best: " in told and len(told) < 200


def test_a_secret_is_refused_and_never_shown(written: Written) -> None:
    path = written("name = 'x'\n[best]\nsize = 1\npassword = 'hunter2'\n[crops]\nhf_token = 'hunter3'\n")
    told = problems(path)
    assert told[1].startswith("recipe.toml:4: best.password: looks like a secret: keep it in the environment")
    assert any(line.startswith("recipe.toml:6: crops.hf_token: looks like a secret") for line in told)
    assert any("crops: input should be a valid tuple" in line for line in told)
    assert "hunter" not in "".join(told)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name = 'x'\n\nbest = {\n", "recipe.toml:3: not TOML: "),
        ("name = 'x'\nname = 'y'\n", "recipe.toml:2: not TOML: Cannot overwrite a value"),
        ("[best]\nsize = \n", "recipe.toml:2: not TOML: Invalid value"),
        ("name = [1,\n2", "recipe.toml:2: not TOML: Unclosed array (end of document)"),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(written: Written, text: str, place: str) -> None:
    (told,) = problems(written(text))
    assert told.startswith(place)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.toml") == ["none.toml: no such file; expected a TOML file"]
    assert "cannot be read: Is a directory" in problems(tmp_path)[0]
    (tmp_path / "latin.toml").write_bytes("name = 'é'".encode("latin-1"))
    assert problems(tmp_path / "latin.toml")[0].startswith("latin.toml: not UTF-8 text")


def test_overrides_replace_and_add_values(written: Written, tmp_path: Path) -> None:
    path = written("name = 'x'\n[[crops]]\nsize = 1\n")
    overrides = parse_overrides(
        ["name=y", "crops[0].size=7", "best.size = 2", "best.mode='bilinear'", "data=sub", "extra.a.b=[1, 2]"]
    )
    assert load_toml(path, Recipe, overrides=overrides) == Recipe(
        name="y",
        data=str(tmp_path / "sub"),
        crops=(Crop(size=7),),
        best=Crop(size=2, mode="bilinear"),
        extra={"a": {"b": [1, 2]}},
    )


def test_values_of_overrides_are_toml_and_otherwise_strings() -> None:
    settings = ["a=1", "b=1.5", "c=true", "d='1'", "e=ray", "f=", "g={x = 1}", "h=s3://b/k=v"]
    assert parse_overrides(settings) == {
        "a": 1, "b": 1.5, "c": True, "d": "1", "e": "ray", "f": "", "g": {"x": 1}, "h": "s3://b/k=v",
    }  # fmt: skip


def test_a_problem_in_an_override_is_told_as_such(written: Written) -> None:
    path = written("name = 'x'\n[[crops]]\nsize = 1\n")
    assert problems(path, {"crops[0].size": 0, "besst.size": 1})[1:] == [
        "--set besst.size: besst: unknown key; did you mean 'best'? "
        "known keys: name, data, crops, best, extra",
        "--set crops[0].size: crops[0].size: input should be greater than or equal to 1, found 0",
    ]


@pytest.mark.parametrize("key", ["crops[1].size", "name.x", "crops.size", "crops[0].size.x"])
def test_an_override_that_leads_nowhere_is_refused(written: Written, key: str) -> None:
    (told,) = problems(written("name = 'x'\n[[crops]]\nsize = 1\n"), {key: 1})
    assert told.startswith(f"--set {key}: no ")


@pytest.mark.parametrize("setting", ["name", "=3", "a..b=3"])
def test_what_is_no_override_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"expected key\.path=value|is not a key path"):
        parse_overrides([setting])
