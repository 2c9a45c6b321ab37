"""How a section is checked by its own kind: `transfer_set`, `teachers` and their like are open-ended.

A section's `kind` picks the options model out of a registry, and what that model objects to is reported at its
place in the whole file, together with all other problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from softcask.pipeline.parts import Options, Registry, kind_of
from softcask.storage_schemas.errors import UnknownKind


@dataclass(frozen=True, slots=True)
class ByKind:
    """Marks a field whose section is validated by the options model that its `kind` names.

    `teacher: Annotated[TeacherOptions, ByKind(TEACHERS)]`; in a list,
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
            raise UnknownKind(f"no kind of {self.registry.part}; known kinds: {', '.join(self.registry.known())}")
        model: type[Options] = self.registry.get(kind)
        return model

    def _validate(self, section: Any, info: ValidationInfo) -> Options:
        if isinstance(section, Options):
            return section
        try:
            model = self.model_for(section)
        except UnknownKind as error:
            raise problem_at(("kind",), str(error), found=kind_of(section)) from error
        return model.model_validate(section, context=info.context)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate by kind, and dump whatever kind of options came out (pydantic's hook)."""
        return core_schema.with_info_plain_validator_function(
            self._validate, serialization=core_schema.plain_serializer_function_ser_schema(_dump)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """An open object with a `kind`: third parties' kinds cannot be listed (pydantic's hook)."""
        return {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}}


def problem_at(loc: tuple[str | int, ...], message: str, *, found: Any = None) -> ValidationError:
    """A problem to raise inside a validator, at a place below the field that is being validated.

    Args:
        loc: Keys and indices from that field on; `(1, "name")` for the second element's name.
        message: What is wrong, what was expected and what to do.
        found: The offending value; None where there is none to show.
    """
    kind = PydanticCustomError("softcask", "{message}", {"message": message})
    return ValidationError.from_exception_data("section", [InitErrorDetails(type=kind, loc=loc, input=found)])


def _dump(section: Options) -> dict[str, Any]:
    return section.model_dump()
