"""The training job in another library; runs as a script in that library's own environment.

`python bench/peers.py NAME JOB` reads a job (bench/training.py writes it) and prints one line of
JSON. Each library is used as its documentation says: deepctr-torch with `compile("adam",
"binary_crossentropy")` and its default penalties, FuxiCTR with the DeepFM of its model zoo (which
its wheel leaves out, so it is composed here of the library's layers, as there).
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main(name: str, job_file: str) -> None:
    """Run the job and print what was measured."""
    job = json.loads(Path(job_file).read_text())
    torch.manual_seed(job["seed"])
    run = {"deepctr-torch": deepctr, "fuxictr": fuxictr}[name]
    print("RESULT " + json.dumps(run(job)))


def timed(step: Callable[[Any], object], batches: list[Any], warm: int) -> float:
    """Median seconds of a step after the first `warm`."""
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        step(batch)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[warm:])


def peak_mib() -> float:
    """Most resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def deepctr(job: dict[str, Any]) -> dict[str, float]:
    """deepctr-torch: steps as its `fit` takes them, then one epoch by `fit` itself."""
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import DeepFM

    data = np.load(job["rows"])
    names = [f"f{number}" for number in range(len(job["sizes"]))]
    columns = [
        SparseFeat(name, size, embedding_dim=job["dim"])
        for name, size in zip(names, job["sizes"], strict=True)
    ]
    model = DeepFM(
        columns, columns, dnn_hidden_units=tuple(job["hidden"]), dnn_dropout=job["dropout"],
        dnn_use_bn=job["batch_norm"], seed=job["seed"],
    )  # fmt: skip
    model.compile("adam", "binary_crossentropy")
    model.train()

    def step(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        predicted = model(batch[0].float()).squeeze(-1)
        model.optim.zero_grad()
        loss = model.loss_func(predicted, batch[1], reduction="sum")
        total = loss + model.get_regularization_loss() + model.aux_loss
        total.backward()
        model.optim.step()

    inputs = torch.from_numpy(data["index"])
    label = torch.from_numpy(data["label"])
    batches = list(
        zip(torch.split(inputs, job["batch"]), torch.split(label, job["batch"]), strict=True)
    )
    measured = {"step_s": timed(step, batches[: job["steps"]], job["warm"]), "mib": peak_mib()}
    if job["epoch"]:
        given = {name: data["index"][:, number] for number, name in enumerate(names)}
        started = time.perf_counter()
        model.fit(given, data["label"], batch_size=job["batch"], epochs=1, verbose=0)
        measured["epoch_s"] = time.perf_counter() - started
    return measured


def fuxictr(job: dict[str, Any]) -> dict[str, float]:
    """FuxiCTR: its `train_step`, then one epoch over its loader; or a whole training."""
    from fuxictr.pytorch.dataloaders import RankDataLoader

    logging.disable(logging.CRITICAL)
    model, features = fuxictr_model(job)
    if "valid" in job:
        parts = [job[part] for part in ("rows", "valid", "test")]
        train, valid, test = RankDataLoader(
            features, "both", *parts, batch_size=job["batch"], shuffle=True
        )
        Path(job["folder"], "job").mkdir(exist_ok=True)  # where it keeps its best weights
        started = time.perf_counter()
        model.fit(train, epochs=100, validation_data=valid)
        seconds = time.perf_counter() - started
        found: dict[str, float] = {"seconds": seconds} | model.evaluate(test)
        return found
    loader, _ = RankDataLoader(
        features, "train", job["rows"], batch_size=job["batch"], shuffle=True
    )
    names = [*features.features, "label"]
    rows = torch.from_numpy(loader.dataset.darray)
    batches = [
        dict(zip(names, part.unbind(1), strict=True))
        for part in torch.split(rows[: job["steps"] * job["batch"]], job["batch"])
    ]
    model.train()
    model._max_gradient_norm = 10.0  # the default of its `fit`
    measured = {"step_s": timed(model.train_step, batches, job["warm"]), "mib": peak_mib()}
    if job["epoch"]:
        model._eval_steps, model._total_steps, model._stop_training = sys.maxsize, 0, False
        started = time.perf_counter()
        model.train_epoch(loader)
        measured["epoch_s"] = time.perf_counter() - started
    return measured


def fuxictr_model(job: dict[str, Any]) -> tuple[Any, Any]:
    """The DeepFM of FuxiCTR's model zoo, and its map of the features."""
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    class DeepFM(BaseModel):  # type: ignore[misc]
        def __init__(self, features: Any) -> None:
            super().__init__(
                features, "DeepFM", embedding_regularizer=job["embedding_l2"], verbose=0,
                model_root=job["folder"], metrics=["AUC", "logloss"],
            )  # fmt: skip
            self.embedding_layer = FeatureEmbedding(features, job["dim"])
            self.fm = FactorizationMachine(features)
            self.mlp = MLP_Block(
                input_dim=features.sum_emb_out_dim(), output_dim=1, hidden_units=job["hidden"],
                hidden_activations="ReLU", output_activation=None, dropout_rates=job["dropout"],
                batch_norm=job["batch_norm"],
            )  # fmt: skip
            self.compile("adam", "binary_crossentropy", 1e-3)
            self.reset_parameters()

        def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
            given = self.get_inputs(inputs)
            embedded = self.embedding_layer(given)
            logit = self.fm(given, embedded) + self.mlp(embedded.flatten(start_dim=1))
            return {"y_pred": self.output_activation(logit)}

    features = FeatureMap("job", job["folder"])
    features.labels, features.num_fields = ["label"], len(job["sizes"])
    features.default_emb_dim = job["dim"]
    for number, size in enumerate(job["sizes"]):
        features.features[f"f{number}"] = {
            "source": "", "type": "categorical", "vocab_size": size, "padding_idx": None,
        }  # fmt: skip
    features.set_column_index()
    return DeepFM(features), features


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
