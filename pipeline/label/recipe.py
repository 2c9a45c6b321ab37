"""What is sent to a process that labels, and what it sends back."""

from __future__ import annotations

from dataclasses import dataclass

from softcask.pipeline.label.labeller import Labeller
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.transfer_sets.base import SourceOptions
from softcask.storage_schemas.manifest import TeacherManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRecipe:
    """All that a process needs to label; picklable.

    Attributes:
        store_uri: Where logits go; its root and segments stand there already.
        transfer_set: Where rows come from.
        teachers: Co-resident teachers, all with one batch size.
        manifests: What their names are pinned to, in the same order.
        python_path: Folders that factories are imported from.
    """

    store_uri: str
    transfer_set: SourceOptions
    teachers: tuple[TeacherOptions, ...]
    manifests: tuple[TeacherManifest, ...]
    python_path: tuple[str, ...] = ()

    def build(self) -> Labeller:
        """Load the teachers in this process.

        Raises:
            SoftcaskError: A teacher, the transfer set or the store cannot be used.
        """
        return Labeller(self)
