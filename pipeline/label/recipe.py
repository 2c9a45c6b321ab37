"""What is sent to a process that labels, and what it sends back."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from softcask.pipeline.label.labeller import Labeller
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.transfer_sets.base import SourceOptions
from softcask.pipeline.views.options import ViewsOptions
from softcask.storage_schemas.errors import StoreAccess
from softcask.storage_schemas.manifest import TeacherManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRecipe:
    """All that a process needs to label; picklable.

    Attributes:
        store_uri: Where logits go; its root and segments stand there already.
        transfer_set: Where rows come from.
        teachers: Co-resident teachers, all with one batch size.
        manifests: What their names are pinned to, in the same order.
        views: What views of the rows are; None: only the rows as they are.
        python_path: Folders that factories are imported from.
        witness: Key of an object that this run's driver has just written; whoever does not see it has
            another disk at the store's path than the driver. None: not looked for.
    """

    store_uri: str
    transfer_set: SourceOptions
    teachers: tuple[TeacherOptions, ...]
    manifests: tuple[TeacherManifest, ...]
    views: ViewsOptions | None = None
    python_path: tuple[str, ...] = ()
    witness: str | None = None

    @property
    def run(self) -> str:
        """Name of the run, for logs; empty where its driver left no word of it."""
        return self.witness.split("/")[1] if self.witness else ""

    def build(self) -> Labeller:
        """Load the teachers in this process.

        Raises:
            StoreAccess: The store's path means another disk here than it does for the driver.
            SoftcaskError: A teacher, the transfer set or the store cannot be used.
        """
        self._refuse_another_disk()
        return Labeller(self)

    def _refuse_another_disk(self) -> None:
        objects = StoreObjects.at(self.store_uri)
        if self.witness is None or objects.local is None or objects.read_if_present(self.witness) is not None:
            return
        raise StoreAccess(
            f"{platform.node()} does not see {objects.local}/{self.witness}, which the driver of this run "
            "wrote: the path is on another disk there. Name a store that every node sees: a URL (s3://...) "
            "or a path on a network disk. Nothing was written."
        )
