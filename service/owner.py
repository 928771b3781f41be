"""Who decides which version answers: the serving process itself, where there is no parent."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Protocol

from features.errors import BundleError, DeepFMError
from service.errors import ServiceError
from service.model import Model, load_model, model_of
from service.models import Models
from service.scorer import Scorer
from service.second import Second
from service.settings import Settings
from service.trial import Trial
from service.versions import ReloadRefused, Standing, Versions

_log = logging.getLogger("deepfm")


class Owner(Protocol):
    """What an application needs of whoever decides."""

    @property
    def standing(self) -> Standing:
        """What there is to tell besides the version that answers."""

    async def start(self, models: Models) -> None:
        """Give the first version to `models`."""

    async def follow(self) -> None:
        """Give later ones, until cancelled."""

    async def reload(self, wanted: int | None) -> int:
        """Switch to a version, None for the one that the rules give; the one that answers then.

        Raises:
            NotFound: no such version lies on disk.
            ReloadRefused: it fails a check.
        """

    async def put_beside(self, trial: Trial | None) -> None:
        """Let a second version stand beside the one that answers; None ends that.

        Raises:
            NotFound: no such version lies on disk.
            ReloadRefused: it fails a check, or answers already.
        """


class OwnVersions:
    """An `Owner` for a process that serves alone.

    Args:
        settings: of the process.
        scorer: ready to answer first; None loads what the rules give.
    """

    def __init__(self, settings: Settings, scorer: Scorer | None = None) -> None:
        self._settings = settings
        self._versions = versions_of(settings)
        self._models = Models()
        self._first: Model | None = None
        self._one_at_a_time = asyncio.Lock()
        if scorer is not None:
            self._take_first(model_of(scorer, settings.limits))

    @property
    def standing(self) -> Standing:
        """As `Owner.standing`."""
        return self._versions.standing

    def load_first(self) -> None:
        """Load what a start is to serve.

        Raises:
            BundleError: there is no version that passes every check.
            ConfigError: the execution provider cannot be had.
        """
        while self._first is None:
            version = self._versions.due()
            if version is None:
                raise self._versions.nothing_served()
            try:
                self._take_first(load_model(self._settings, version))
            except BundleError as error:
                self._versions.refuse(version, error.message)

    async def start(self, models: Models) -> None:
        """As `Owner.start`."""
        self._models = models
        # Loading holds a core for a while: the loop stays free to say that it is alive.
        await asyncio.to_thread(self.load_first)
        if self._first is not None:
            models.switch(self._first)
        self._first = None  # else it could never be freed

    async def follow(self) -> None:
        """As `Owner.follow`."""
        if self._settings.trial is not None:
            try:
                await self.put_beside(self._settings.trial)
            except ServiceError as error:
                _log.error("no second version: %s", error.message)
        while self._settings.reload_poll_s:
            await asyncio.sleep(self._settings.reload_poll_s)
            async with self._one_at_a_time:
                version = await asyncio.to_thread(self._versions.due)
                if version is not None:
                    with suppress(ReloadRefused):
                        await self._switch(version)

    async def reload(self, wanted: int | None) -> int:
        """As `Owner.reload`."""
        async with self._one_at_a_time:
            version = await asyncio.to_thread(self._versions.asked, wanted)
            if version != self._versions.current:
                await self._switch(version)
            return version

    async def put_beside(self, trial: Trial | None) -> None:
        """As `Owner.put_beside`."""
        async with self._one_at_a_time:
            model = None
            if trial is not None:
                await asyncio.to_thread(self._versions.asked_beside, trial.version)
                model = await self._load(trial.version)
                self._versions.stands_beside(trial.version)
            put_beside(self._models, trial, model, self._settings)

    async def _load(self, version: int) -> Model:
        if version in self._models.loaded:  # it stands beside
            return self._models.loaded[version]
        model = await asyncio.to_thread(loaded, self._settings, version)
        if isinstance(model, str):
            raise self._versions.refuse(version, model)
        return model

    async def _switch(self, version: int) -> None:
        model = await self._load(version)
        self._models.switch(model)
        self._versions.served(version)

    def _take_first(self, model: Model) -> None:
        self._first = model
        self._versions.served(model.version)


def versions_of(settings: Settings) -> Versions:
    """The versions in the folder that the settings name."""
    trial = settings.trial
    return Versions(settings.bundle, settings.version, trial.version if trial else None)


def put_beside(
    models: Models, trial: Trial | None, model: Model | None, settings: Settings
) -> None:
    """Let a loaded version stand beside the one that answers; without one, none."""
    second = models.second
    if trial is None or model is None:
        models.put_beside(None)
    elif second is not None and second.model is model:
        second.turn_to(trial)
    else:
        models.put_beside(Second(trial, model, models.pick, settings))


def loaded(settings: Settings, version: int) -> Model | str:
    """A version to switch to, or why it is refused."""
    try:
        return load_model(settings, version)
    except DeepFMError as error:
        return error.message
