"""Opens the slower tiers that an operator asks for: how many blocks of each, and the folder."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engines.errors import ModelRejected
from engines.step import BlockBytes
from engines.tiers.folder import BlockFolder, file_bytes
from engines.tiers.keeper import Keeper
from engines.tiers.places import UnsafeFolder, remove_abandoned, take_place
from kvcache.tiers import Tiers

_log = logging.getLogger(__name__)
Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class TierBudget:
    """Bytes for each tier; none at all for no tier."""

    host_bytes: int = 0
    disk_dir: Path | None = None
    disk_bytes: int = 0


def open_keeper(
    budget: TierBudget, block_bytes: int, fingerprint: Callable[[], bytes]
) -> Keeper[Message] | None:
    """The keeper of these tiers, with what its folder has already; None where none is asked for.

    `fingerprint` gives 16 bytes that differ wherever the same tokens may give other contents; it
    is only asked for a disk, as it may take seconds. Where a folder cannot be had, the engine runs
    without a disk, and the log says so. Raises ModelRejected for budgets and folders that cannot be
    meant.
    """
    host = budget.host_bytes // block_bytes
    if budget.disk_dir is not None and not host:
        raise ModelRejected(
            f"--kv-disk-dir needs --kv-host-memory of at least one block ({block_bytes} bytes):"
            " what is read from the disk goes there"
        )
    if not budget.host_bytes:
        return None
    if not host:
        raise ModelRejected(
            f"--kv-host-memory {budget.host_bytes} holds no KV block: one has {block_bytes} bytes"
        )
    disk = budget.disk_bytes // file_bytes(block_bytes)
    if budget.disk_dir is None or not disk:
        return Keeper(Tiers[BlockBytes](host), block_bytes)
    try:
        folder = _open_folder(budget, fingerprint(), block_bytes)
        found = folder.list_blocks(disk)
    except UnsafeFolder as error:
        raise ModelRejected(f"--kv-disk-dir {budget.disk_dir}: {error}") from error
    except OSError as error:
        _log.warning("no KV blocks are kept on the disk: %s", error)
        return Keeper(Tiers[BlockBytes](host), block_bytes)
    tiers = Tiers[BlockBytes](host, disk)
    tiers.disk.found(found)
    _log.info("KV blocks found on the disk: %d", len(found))
    return Keeper(tiers, block_bytes, folder)


def _open_folder(budget: TierBudget, fingerprint: bytes, block_bytes: int) -> BlockFolder:
    root = budget.disk_dir
    if root is None:
        raise ValueError("no folder is asked for")
    place = take_place(root, fingerprint)
    removed = remove_abandoned(root, budget.disk_bytes)
    if removed:
        _log.info("KV blocks of other models were removed from %s: %d bytes", root, removed)
    return BlockFolder(place, fingerprint, block_bytes)
