"""How much larger than its packed bytes an object may be: what a store may make a reader allocate."""

from __future__ import annotations

from softcask.storage_schemas.errors import CorruptObject

_MOST_GROWTH, ALWAYS_BYTES = 1000, 256 << 20
"""Logits shrink tenfold at the most; a unit of quarantined rows to nearly nothing, as long as others are."""


def check_growth(packed: int, unpacked: int, key: str) -> None:
    """Refuse an object that would unpack to what no logits do.

    Args:
        packed: Bytes that it has.
        unpacked: Bytes that its manifests say it comes to.
        key: Its name, for the message.

    Raises:
        CorruptObject: It would take more than 1,000 times its bytes, and more than 256 MiB.
    """
    if unpacked > (most := max(_MOST_GROWTH * packed, ALWAYS_BYTES)):
        raise CorruptObject(
            f"{key}, of {packed} bytes, unpacks to {unpacked} bytes; logits of this size have at most "
            f"{most}. It is not trusted"
        )
