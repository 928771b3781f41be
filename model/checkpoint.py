"""Where an interrupted training goes on: one file beside the run folder, replaced after each epoch.

`RUN.checkpoint` is a safetensors file: the network, the best epoch's weights, the optimiser and the
states of the random generators; what else the loop has seen stands as JSON in its metadata, with
fingerprints of spec and data. It is gone once the run folder is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from features.atomic import new_file
from features.errors import DataError
from features.spec import Spec
from model.deepfm import DeepFM
from model.optimizer import Optimizer
from model.progress import Progress
from model.tensors import save_tensors


@dataclass(frozen=True)
class Training:
    """All that the next epoch depends on.

    Args:
        network: in training.
        optimizer: with what it remembers of earlier steps.
        generator: draws the order of the rows; dropout draws from torch's own.
        progress: of the epochs until now.
    """

    network: DeepFM
    optimizer: Optimizer
    generator: torch.Generator
    progress: Progress


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one run.

    Args:
        run: the run folder that is to be.
        origin: fingerprints that must not change, by what they are of.
    """

    run: Path
    origin: Mapping[str, str]

    @property
    def file(self) -> Path:
        """Where it lies."""
        return checkpoint_file(self.run)

    def keep(self, training: Training) -> None:
        """Replace what was kept before.

        Raises:
            OutputError: there is no room; what was kept before still stands.
        """
        parts: dict[str, Mapping[str, Tensor]] = {
            "network": training.network.state_dict(),
            "best": training.progress.best_state,
            "optimizer": training.optimizer.state_dict(),
            "random": {"own": training.generator.get_state(), "torch": torch.get_rng_state()},
        }
        tensors = {
            f"{part}/{name}": tensor
            for part, group in parts.items()
            for name, tensor in group.items()
        }
        seen, from_ = json.dumps(training.progress.seen()), json.dumps(dict(self.origin))
        metadata = {"seen": seen, "origin": from_}
        with new_file(self.file) as draft:
            save_tensors(tensors, draft, metadata)

    def resume(self, training: Training) -> None:
        """Put everything where `keep` left it.

        Raises:
            DataError: the file is damaged, or was written for another spec or other data.
        """
        metadata, parts = self._read()
        for name, fingerprint in self.origin.items():
            if json.loads(metadata["origin"]).get(name) != fingerprint:
                raise DataError(
                    f"{self.file}: the {name} changed since it was written; {_START_ANEW}"
                )
        training.network.load_state_dict(parts["network"])
        training.optimizer.load_state_dict(parts["optimizer"])
        training.generator.set_state(parts["random"]["own"])
        torch.set_rng_state(parts["random"]["torch"])
        training.progress.best_state = parts["best"]
        for name, value in json.loads(metadata["seen"]).items():
            setattr(training.progress, name, value)

    def _read(self) -> tuple[dict[str, str], dict[str, dict[str, Tensor]]]:
        parts: dict[str, dict[str, Tensor]] = {}
        try:
            with safe_open(self.file, "pt") as opened:
                metadata: dict[str, str] = opened.metadata()
                for key in opened.keys():  # noqa: SIM118 (it is no mapping)
                    part, _, name = key.partition("/")
                    parts.setdefault(part, {})[name] = opened.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self.file}: not a checkpoint: {error}; {_START_ANEW}") from error
        return metadata, parts

    def remove(self) -> None:
        """Delete it."""
        self.file.unlink(missing_ok=True)


def checkpoint_file(run: Path) -> Path:
    """`RUN.checkpoint`, beside the run folder."""
    return run.with_name(f"{run.name}.checkpoint")


def origin(spec: Spec, *data: str) -> dict[str, str]:
    """What must be the same when training goes on, given fingerprints of the rows."""
    text = json.dumps(spec.to_json(), sort_keys=True)
    return {"spec": hashlib.sha256(text.encode()).hexdigest(), "data": " ".join(data)}


@contextmanager
def told_how_to_go_on(run: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Says it when the block is interrupted and a checkpoint was kept."""
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint_file(run).exists():
            say(f"{checkpoint_file(run)} is kept; to go on from it, train again with -o {run}")
        raise


_START_ANEW = "delete it to start anew"
