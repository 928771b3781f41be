"""Which version is to be served: what lies on disk, what was refused, what was served before.

Rules:
- A start takes the newest version that passes every check, or the pinned one.
- Polling moves up only: to the newest version above every one served since the start, and never
  where one is pinned. So a rollback lasts until something newer appears than was ever served.
- A version that somebody put beside the one that answers is never taken unasked, not even after it
  was taken away again: whoever tries a version decides about it.
- A refused version is tried again when its files have changed, or when it is asked for.
- Who asks gets what they name; who names nothing, the pinned version or else the newest.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from features.bundle import MANIFEST_FILE, versions
from features.errors import BundleError
from service.errors import NotFound, ServiceError

Files = tuple[tuple[str, int, int, int], ...]
_log = logging.getLogger("deepfm")


class Refusal(msgspec.Struct, frozen=True):
    """A version that failed a check, and which one."""

    version: int
    reason: str


class Standing(msgspec.Struct, frozen=True, tag=True):
    """What a process tells of the versions besides the one that answers.

    Args:
        refusals: versions on disk that failed a check, ascending.
        switched: how many reloads have switched since the start.
        refused: how many have not.
        is_replaced: another worker has taken the place of this one, which ends.
    """

    refusals: tuple[Refusal, ...] = ()
    switched: int = 0
    refused: int = 0
    is_replaced: bool = False


class ReloadRefused(ServiceError):
    """A version failed a check: the one that answers goes on (409)."""

    status = 409


class Versions:
    """The versions in one folder; belongs to the process that decides.

    Args:
        folder: ROOT/NAME.
        pinned: the only version that is loaded unasked.
        second: the version to stand beside from the start on.
    """

    def __init__(self, folder: Path, pinned: int | None, second: int | None = None) -> None:
        self.folder = folder
        self.pinned = pinned
        self.current: int | None = None
        self._highest = 0
        self._tried_beside = {second}
        self._tried: dict[int, Files] = {}
        self._refused: dict[int, str] = {}
        self._counts = {"switched": 0, "refused": 0}

    def due(self) -> int | None:
        """The version to load unasked.

        Raises:
            BundleError: the folder cannot be read, and nothing is being served.
        """
        if self.pinned is not None:
            return None if self.current or self.pinned in self._refused else self._try(self.pinned)
        for version in reversed(self._listed()):
            if version <= self._highest:
                break
            if version in self._tried_beside:
                continue
            if version not in self._refused or self._files(version) != self._tried[version]:
                return self._try(version)
        return None

    def asked(self, wanted: int | None) -> int:
        """The version that somebody asks for; None asks for the one that the rules would give.

        Raises:
            NotFound: no such version lies on disk.
        """
        listed = self._listed()
        version = wanted or self.pinned or max(listed, default=None)
        if version is None or version not in listed:
            raise NotFound(f"no version {version} lies on disk" if version else "no version")
        return self._try(version)

    def asked_beside(self, version: int) -> None:
        """Somebody wants a version beside the one that answers.

        Raises:
            NotFound: no such version lies on disk.
            ReloadRefused: it answers already.
        """
        self.asked(version)
        if version == self.current:
            raise ReloadRefused(f"version {version} is the one that answers")
        self._tried_beside.add(version)

    def stands_beside(self, version: int) -> None:
        """It is loaded: nothing is wrong with it."""
        self._refused = {n: why for n, why in self._refused.items() if n != version}

    def served(self, version: int) -> None:
        """It answers from now on."""
        self._counts["switched"] += self.current is not None
        self.current = version
        self._highest = max(self._highest, version)
        self._refused = {n: why for n, why in self._refused.items() if n > version}

    def refuse(self, version: int, reason: str) -> ReloadRefused:
        """It failed a check; the error to answer with."""
        _log.error("version %d is refused: %s", version, reason)
        self._counts["refused"] += 1
        self._refused = self._refused | {version: reason}
        return ReloadRefused(f"version {version} is refused: {self._told(reason)}")

    def nothing_served(self) -> BundleError:
        """Why a start found nothing to serve."""
        if self._refused:
            return BundleError(self._refused[max(self._refused)])
        if (self.folder / MANIFEST_FILE).is_file():
            return BundleError(
                f"{self.folder}: is a version, expected the folder that holds it, "
                f"{self.folder.parent}"
            )
        return BundleError(f"{self.folder}: holds no version (a folder named 1, 2, ...)")

    @property
    def standing(self) -> Standing:
        """What to tell."""
        refusals = [Refusal(n, self._told(why)) for n, why in sorted(self._refused.items())]
        counts = self._counts
        return Standing(tuple(refusals), counts["switched"], counts["refused"])

    def _told(self, reason: str) -> str:
        """A reason without the path of the folder, which is nobody else's business."""
        return reason.replace(f"{self.folder}/", "")

    def _try(self, version: int) -> int:
        # Before it is loaded: what is still being written changes, and is tried again.
        self._tried[version] = self._files(version)
        return version

    def _listed(self) -> list[int]:
        try:
            found = versions(self.folder)
        except BundleError as error:
            if self.current is None:
                raise
            _log.warning("no new version can be noticed: %s", error.message)
            return []
        self._refused = {n: why for n, why in self._refused.items() if n in found}
        return found

    def _files(self, version: int) -> Files:
        """Name, size, time and inode of every file: what cannot stay when one is written anew."""
        try:
            with os.scandir(self.folder / str(version)) as entries:
                found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        except OSError:
            return ()
        return tuple(sorted((n, s.st_size, s.st_mtime_ns, s.st_ino) for n, s in found))
