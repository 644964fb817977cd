"""The last epoch and the epoch chosen on validation, on test: both are reported, neither is chosen here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdeploy import artifacts
from kdeploy.stages import data
from kdeploy.stages.base import Run


@dataclass(frozen=True)
class Epochs:
    """Writes `networks/<role>/epochs.json`: of each of the two its epoch, validation accuracy, and accuracy,
    likelihood and calibration error on test."""

    role: str

    @property
    def name(self) -> str:
        return f"epochs/{self.role}"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        weights = {name: sha for name, sha in run.trained(self.role).items() if "safetensors" in name}
        return {"weights": weights, "images": data.fingerprint(run)}

    def run(self, run: Run) -> Sequence[Path]:
        from kdeploy.bench.likelihood import Answers
        from kdeploy.loading import EvalBatches
        from kdeploy.models.storage import load_network
        from kdeploy.recipe.schema import TrainSpec
        from kdeploy.training import setup
        from kdeploy.training.evaluate import predict

        folder = run.folder / "networks" / self.role
        history = artifacts.read_json(folder / "history.json")
        batches = EvalBatches(run.workshop.tensors("test"))
        decided = setup.choose(TrainSpec(precision="float32"), run.workshop.device)
        result: dict[str, Any] = {
            "schema_version": 1,
            "selected": history["selected"],
            "test_samples": len(run.splits.test),
        }
        for kind in ("last", "chosen"):
            stem = f"{self.role}-{kind}" if (folder / f"{self.role}-{kind}.json").is_file() else self.role
            classifier, _ = load_network(folder, stem)
            decided.place(classifier)
            logits, labels = predict(classifier, batches, decided)
            answers = Answers.of_logits(logits.numpy(), labels.numpy())
            result[kind] = {
                **history[kind],
                "test_accuracy": float(answers.right.mean()),
                "test_negative_log_likelihood": answers.negative_log_likelihood,
                "test_calibration_error": answers.calibration_error,
            }
        target = folder / "epochs.json"
        artifacts.write_json(target, result)
        return [target]
