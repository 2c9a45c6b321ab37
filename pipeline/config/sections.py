"""How a section is checked by its own kind: `transfer_set`, `teachers` and their like are open-ended.

A section's `kind` picks the options model out of a registry, and what that model objects to is reported at
its place in the whole file, together with all other problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from softcask.pipeline.config.places import Place
from softcask.pipeline.parts import Options, Registry, kind_of
from softcask.storage_schemas.errors import UnknownKind

CUSTOM = "softcask"
"""Type of the problems that `problem_at` makes: their message says all there is to say."""


@dataclass(frozen=True, slots=True, eq=False)
class ByKind:
    """Marks a field whose section is validated by the options model that its `kind` names.

    `transfer_set: Annotated[SourceOptions, ByKind(SOURCES)]`; in a list,
    `teachers: tuple[Annotated[TeacherOptions, ByKind(TEACHERS)], ...]`.
    """

    registry: Registry[Any]

    def model_for(self, section: Any) -> type[Options]:
        """The options model of this raw section.

        Raises:
            UnknownKind: The section names no kind, or one that the registry does not know.
        """
        kind = kind_of(section)
        if not isinstance(kind, str):
            known = ", ".join(self.registry.known())
            raise UnknownKind(f"says no kind of {self.registry.part}; known kinds: {known}")
        model: type[Options] = self.registry.get(kind)
        return model

    def _validate(self, section: Any, info: ValidationInfo) -> Options:
        if isinstance(section, Options):
            return section
        try:
            model = self.model_for(section)
        except UnknownKind as error:
            raise problem_at(("kind",), str(error)) from error
        return model.model_validate(section, context=info.context)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate by kind, and dump whatever kind of options came out (pydantic's hook)."""
        dump = core_schema.plain_serializer_function_ser_schema(_dump, info_arg=True)
        return core_schema.with_info_plain_validator_function(self._validate, serialization=dump)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """An open object with a `kind`: third parties' kinds cannot be listed (pydantic's hook)."""
        return {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}}


def problem_at(place: Place, message: str) -> ValidationError:
    """A problem to raise inside a validator, at a place below the field that is being validated.

    Args:
        place: Keys and indices from that field on; `(1, "name")` for the second element's name.
        message: What was found, what was expected and what to do.
    """
    problem = PydanticCustomError(CUSTOM, "{message}", {"message": message})
    return ValidationError.from_exception_data(
        "section", [InitErrorDetails(type=problem, loc=place, input=None)]
    )


def merged(*errors: ValidationError) -> ValidationError:
    """All problems of several errors as one, so that a wrap validator need not choose which to raise."""
    problems = [problem for error in errors for problem in error.errors(include_url=False)]
    return ValidationError.from_exception_data(
        "section",
        [
            InitErrorDetails(
                type=PydanticCustomError(problem["type"], "{message}", {"message": problem["msg"]}),
                loc=problem["loc"],
                input=problem["input"],
            )
            for problem in problems
        ],
    )


def known_keys(model: type[BaseModel], raw: Any, place: Place) -> list[str]:
    """The keys that would be understood beside the one at `place`; empty where that cannot be told."""
    section: type[BaseModel] | None = model
    hint: Any = model
    for part in place[:-1]:
        if isinstance(part, str) and section is not None and part in section.model_fields:
            field = section.model_fields[part]
            hint = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        elif isinstance(part, str):
            return []
        raw = raw[part]
        section = _section_model(hint, raw)
    return list(section.model_fields) if section is not None else []


def _section_model(hint: Any, raw: Any) -> type[BaseModel] | None:
    if get_origin(hint) is Annotated:
        for marker in hint.__metadata__:
            if isinstance(marker, ByKind):
                return marker.model_for(raw) if kind_of(raw) in marker.registry.known() else None
        return _section_model(hint.__origin__, raw)
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((model for arg in get_args(hint) if (model := _section_model(arg, raw))), None)


def _dump(section: Options, info: core_schema.SerializationInfo) -> dict[str, Any]:
    return section.model_dump(mode=info.mode)
