"""`views/VIEW.json`: what a view of every row is, pinned before the first unit of it is labelled.

What an augmentation drew for a row is not stored: it follows from (seed, sample_id, view), and the hashes of
a few augmented rows tell whether it still does.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from softcask.storage_schemas.manifest import Count, Facts, Manifest, Name, Part

MOST_VIEWS = 9_999
"""Their numbers have four digits in a unit's name; 0 is the row as it is."""

_MOST_PROBES = 64


class ViewProbe(Part):
    """One augmented row, by its hash.

    Attributes:
        row: Its place in the segment.
        sample_id: Its id.
        content: Hex of its content hash, as rows of the transfer set have one, once it is augmented.
    """

    row: Count
    sample_id: str
    content: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class ViewManifest(Manifest):
    """`views/VIEW.json`.

    Attributes:
        view: Its number, from 1 on.
        seed: From which, with a row's id and the view's number, all that is random follows.
        steps: What is done to a row, in order: each a `kind`, the `version` of its code, and its options.
        row_shape: Shape of a row in this view.
        row_dtype: numpy dtype of a row in this view, or `text`.
        segment: Where the probe rows are from.
        probe: A few rows in this view.
        recorded: Facts that do not count: versions of libraries, digests of sources.
    """

    softcask: ClassVar[str] = "view"
    view: Annotated[int, Field(ge=1, le=MOST_VIEWS)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    steps: Annotated[tuple[Facts, ...], Field(min_length=1, max_length=64)]
    row_shape: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...]
    row_dtype: str
    segment: Name
    probe: Annotated[tuple[ViewProbe, ...], Field(max_length=_MOST_PROBES)]
    recorded: Facts

    def pinned(self) -> dict[str, Any]:
        """What must be equal for another run to go on with this view; how rows then look, the probe tells."""
        return self.model_dump(mode="json", include={"view", "seed", "steps"})
