"""A store on one node's own disk is no store for a cluster of several: the others would write to theirs."""

from __future__ import annotations

from softcask.pipeline.config.local_paths import local_path
from softcask.pipeline.precompute.config import RunConfig
from softcask.storage_schemas.errors import ConfigError


def refuse_own_disk(config: RunConfig, nodes: int) -> None:
    """Refuse a store that several nodes cannot all see.

    Args:
        config: The run.
        nodes: Of the cluster, as many as are alive.

    Raises:
        ConfigError: The store is a path, there are several nodes, and nobody says that they share it.
    """
    path = local_path(config.store.uri)
    if path is None or nodes <= 1:
        return
    if any(path.is_relative_to(folder) for folder in config.executor.shared_paths):
        return
    raise ConfigError(
        f"the store {path} is a path, and the cluster has {nodes} nodes, each with a disk of its own. Name a "
        'store that all of them see: a URL (--set store.uri="s3://BUCKET/cask"), or a path on a network disk '
        f"that they all have, and say so (--set 'executor.shared_paths=[\"{path.parent}\"]')."
    )
