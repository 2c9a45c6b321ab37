"""The configuration of a `lowrank` codec, as a manifest has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from softcask.storage_schemas.codecs.fidelity import TEMPERATURES
from softcask.storage_schemas.errors import StoreError

Temperature = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


class Settings(BaseModel):
    """Parameters of a `lowrank` codec.

    Attributes:
        num_classes: C.
        head_size: K, classes a row that are kept one by one; fewer than C.
        head_bits: Bits of the residual of each.
        rank: R, coefficients a row.
        step: What a coefficient's code counts, in nats.
        coder: "zstd", which Parquet applies to bytes that hold several coefficients; or "ans", by row.
        coefficient_bytes: Bytes a row that the coefficients are packed into before zstd; 0 with "ans".
        temperatures: At which heads are chosen and fits are judged; the least and the largest are the claim.
        fit: What calibration measured on rows it was not fitted on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_classes: Annotated[int, Field(ge=2, le=1 << 20)]
    head_size: Annotated[int, Field(ge=1, le=4096)]
    head_bits: Annotated[int, Field(ge=2, le=12)] = 7
    rank: Annotated[int, Field(ge=0, le=8192)]
    step: Annotated[float, Field(ge=1e-6, le=1e3, allow_inf_nan=False)]
    coder: Literal["zstd", "ans"] = "zstd"
    coefficient_bytes: Annotated[int, Field(ge=0, le=16384)]
    temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1, max_length=64)] = TEMPERATURES
    fit: dict[str, Any] = {}

    @classmethod
    def from_configuration(cls, configuration: dict[str, Any]) -> Self:
        """The settings in a codec's configuration.

        Raises:
            StoreError: It does not fit; the message lists every problem.
        """
        try:
            settings = cls.model_validate(configuration)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise StoreError(f"the configuration of codec lowrank does not fit: {problems}") from error
        if settings.head_size >= settings.num_classes:
            raise StoreError(
                f"codec lowrank has a head smaller than the number of classes; the store says "
                f"{settings.head_size} of {settings.num_classes}"
            )
        return settings
