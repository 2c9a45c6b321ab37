"""The run file: which rows, which teachers, what store, and where the work is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator

from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.config.sections import ByKind, merged, problem_at
from softcask.pipeline.config.toml import load_toml
from softcask.pipeline.executors.options import ExecutorOptions
from softcask.pipeline.parts import Options, ResolvedPath
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.teachers.registry import TEACHERS
from softcask.pipeline.transfer_sets.base import SourceOptions
from softcask.pipeline.transfer_sets.registry import SOURCES
from softcask.pipeline.views.options import ViewsOptions
from softcask.storage_schemas.errors import ConfigError


class StoreOptions(Options):
    """`[store]`: where logits are kept, and how.

    Attributes:
        uri: Folder or fsspec URL of the store.
        unit_rows: Rows of a unit of work, commit and loss; None: as many as the plan finds good.
        codec: How logits become bytes: a codec's name, or a section of its own.
        compression: Of chunks in Zarr: `none`, `blosc`, or `auto`: none on local disks, blosc elsewhere.
        stats: Whether each unit gets a table of statistics.
    """

    uri: ResolvedPath
    unit_rows: int | None = Field(default=None, ge=1)
    codec: CodecRequest = CodecRequest()
    compression: Literal["auto", "none", "blosc"] = "auto"
    stats: bool = True

    @field_validator("codec", mode="before")
    @classmethod
    def _name_alone(cls, found: Any) -> Any:
        return {"name": found} if isinstance(found, str) else found


class ClassesOptions(Options):
    """`[classes]`: what the logits are about: by name, only by number, or as a teacher's model names them.

    Attributes:
        names: A name a class, in the order of the logits.
        count: How many, where they have no names.
        from_teacher: Name of the teacher whose model names its outputs; they are the classes, in its order.
    """

    names: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    count: int | None = Field(default=None, ge=2)
    from_teacher: str | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names, or "0", "1", ... where there are none; for `from_teacher` see `classes.with_classes`."""
        return self.names or tuple(str(index) for index in range(self.count or 0))

    @field_validator("names")
    @classmethod
    def _check_names(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(names) < 2:
            raise ConfigError(f"{len(names)} class names, expected at least 2")
        for name, times in Counter(names).items():
            if times > 1:
                raise ConfigError(f"class name {name!r} stands {times} times; expected each once")
        return names

    @model_validator(mode="after")
    def _check_either(self) -> Self:
        stated = [name for name in ("names", "count", "from_teacher") if getattr(self, name) is not None]
        if len(stated) != 1:
            found = "neither names nor count nor from_teacher" if not stated else " and ".join(stated)
            raise ConfigError(f"found {found}, expected one of them")
        return self


class RunConfig(Options):
    """A whole run file.

    Attributes:
        store: Where logits are kept.
        transfer_set: The rows that are labelled.
        classes: What the logits are about.
        teachers: Who labels them; names differ by more than upper and lower case.
        views: Augmentations of the rows that are labelled beside the rows themselves; None: none.
        executor: Where the work is done.
        python_path: Folders that factories may be imported from; relative ones start at the file's folder.
    """

    store: StoreOptions
    transfer_set: Annotated[SourceOptions, ByKind(SOURCES)]
    classes: ClassesOptions
    teachers: tuple[Annotated[TeacherOptions, ByKind(TEACHERS)], ...]
    views: ViewsOptions | None = None
    executor: ExecutorOptions = ExecutorOptions()
    python_path: tuple[ResolvedPath, ...] = (".",)

    @field_validator("teachers", mode="wrap")
    @classmethod
    def _check_names(cls, raw: Any, check: ValidatorFunctionWrapHandler) -> Any:
        problems = list(_repeated_names(raw)) if isinstance(raw, (list, tuple)) else []
        if raw in ([], ()):
            problems.append(problem_at((), "no teacher; expected at least one"))
        try:
            teachers = check(raw)
        except ValidationError as error:
            problems.append(error)
        if problems:
            raise merged(*problems)
        return teachers

    @model_validator(mode="after")
    def _check_namer(self) -> Self:
        names = [teacher.name for teacher in self.teachers]
        if self.classes.from_teacher not in (None, *names):
            raise ConfigError(
                f"classes.from_teacher is {self.classes.from_teacher!r}, expected one of {', '.join(names)}"
            )
        return self

    @model_validator(mode="after")
    def _check_absent(self) -> Self:
        classes = len(self.classes.class_names)
        for teacher in self.teachers if classes else ():  # which a teacher may yet have to name
            absent = teacher.absent_classes
            if absent and (absent[-1] >= classes or classes - len(absent) < 2):
                raise ConfigError(
                    f"absent_classes of teacher {teacher.name!r} name {len(absent)} classes, up to "
                    f"{absent[-1]}; there are {classes}, from 0 on, and two or more must be left"
                )
        return self

    @model_validator(mode="after")
    def _check_reach(self) -> Self:
        if self.store.uri.startswith("memory://") and self.executor.kind != "serial":
            raise ConfigError(
                f"the store {self.store.uri} is in this process's memory, where no worker of the executor "
                f'{self.executor.kind!r} sees it: name a folder or a URL, or set executor.kind = "serial"'
            )
        return self


def _repeated_names(teachers: Sequence[Any]) -> Iterator[ValidationError]:
    first: dict[str, int] = {}
    for index, teacher in enumerate(teachers):
        name = teacher.get("name") if isinstance(teacher, Mapping) else getattr(teacher, "name", None)
        if isinstance(name, str) and (other := first.setdefault(name.lower(), index)) != index:
            taken = (
                f"{name!r} is taken by teachers[{other}]; names must differ by more than upper and lower case"
            )
            yield problem_at((index, "name"), taken)


def load_run(path: str | PathLike[str], overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read and validate a run file.

    Args:
        path: The TOML file.
        overrides: Values in place of the file's, by key path; see `parse_overrides`.

    Raises:
        ConfigError: The file is not valid; the message lists every problem with its place.
    """
    return load_toml(path, RunConfig, overrides=overrides)
