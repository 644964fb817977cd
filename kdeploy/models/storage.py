"""A network on disk: weights as safetensors, and a JSON card that says how to build it, with or without kdeploy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from kdeploy.artifacts import atomic_path, read_json, write_json
from kdeploy.errors import UserError
from kdeploy.models.batch_ensemble import BatchEnsemble
from kdeploy.models.catalogue import architecture_options, create
from kdeploy.models.checkpoints import load_into
from kdeploy.models.classifier import Classifier
from kdeploy.models.counting import blank, count, evaluating
from kdeploy.models.reused_head import ReusedHead, rebuild
from kdeploy.recipe.schema import NetworkSpec

SCHEMA_VERSION = 1
_FROM_CALLER = ("model", "width", "options", "classes", "image")
_HOW_TO_LOAD = (
    "Build `model` with `outputs` classes, `image.channels` channels, `width` and `options`: in Python, "
    "kdeploy.models.storage.load_network(folder). Without kdeploy: build the same architecture in PyTorch and call "
    "load_state_dict(safetensors.torch.load_file(weights)), strictly. Input: float32 [B, C, H, W], RGB or gray, "
    "scaled to [0, 1], then (x - mean) / std per channel. Output: logits [B, outputs]; the logit of classes[k] is "
    "number class_map[k], or number k where class_map is null. Where reused_head is not null, the network goes on "
    "behind its `tap` with that projector, average pooling and a linear layer. Where batch_ensemble is not null, each "
    "convolution and linear layer is the `shared` one of so many members, whose `alpha` and `gamma` scale what goes in "
    "and comes out (kdeploy.models.batch_ensemble), and the output is the logarithm of the members' mean probability."
)


def save_network(folder: Path, classifier: Classifier, card: Mapping[str, Any], *, stem: str | None = None) -> None:
    """Write `<stem>.safetensors` and then `<stem>.json`; the stem is the folder's name unless given.

    `card` must hold what the classifier does not know: `model`, `width`, `options`, `classes` (names, in the data's
    order) and `image` (`height`, `width`, `channels`). What else it holds is kept as it is. The rest is filled in.
    Only the network's own weights are written: no normalisation, no teacher, no projector.
    """
    lacking = [key for key in _FROM_CALLER if key not in card]
    if lacking:
        raise ValueError(f"the card lacks {', '.join(lacking)}")
    stem = stem or folder.resolve().name
    image = card["image"]
    shape = (image["channels"], image["height"], image["width"])
    counts = count(classifier.network, shape)
    with evaluating(classifier.network):
        outputs = classifier.network(blank(classifier.network, shape)).shape[1]
    order = classifier.class_map
    full = {
        "schema_version": SCHEMA_VERSION,
        **card,
        "options": architecture_options(card["model"], card["options"]),
        "weights": f"{stem}.safetensors",
        "outputs": outputs,
        "mean": _list(classifier.mean),
        "std": _list(classifier.std),
        "class_map": None if order is None else order.tolist(),
        "reused_head": classifier.network.describe() if isinstance(classifier.network, ReusedHead) else None,
        "batch_ensemble": classifier.network.describe() if isinstance(classifier.network, BatchEnsemble) else None,
        "parameters": counts.parameters,
        "macs": counts.macs,
        "how_to_load": _HOW_TO_LOAD,
    }
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in classifier.network.state_dict().items()}
    with atomic_path(folder / f"{stem}.safetensors") as temporary:
        save_file(weights, temporary)
    write_json(folder / f"{stem}.json", full)


def load_network(folder: Path, stem: str | None = None) -> tuple[Classifier, dict[str, Any]]:
    """Rebuild what `save_network` wrote: the classifier on the CPU in evaluation mode, and its card.

    Raises UserError for a missing or broken file, or a card of another schema.
    """
    stem = stem or folder.resolve().name
    path = folder / f"{stem}.json"
    card = read_json(path)
    if not isinstance(card, dict) or card.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path} is not the card of a network (schema_version {SCHEMA_VERSION}).")
    try:
        spec = NetworkSpec(
            model=card["model"], width=card["width"], options=card["options"], checkpoint=f"{stem}.safetensors"
        )
        outputs, channels = int(card["outputs"]), int(card["image"]["channels"])
        around = Classifier(nn.Identity(), card["mean"], card["std"], card["class_map"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is not the card of a network: {type(error).__name__} {error}.") from None
    around.network = create(spec, classes=outputs, channels=channels)
    if card.get("reused_head") is not None:
        around.network = rebuild(around.network, card["reused_head"], outputs)
    if card.get("batch_ensemble") is not None:
        around.network = BatchEnsemble(around.network, **card["batch_ensemble"])
    load_into(around.network, spec, base=folder)
    return around.eval(), card


def _list(buffer: Tensor) -> list[float]:
    # NumPy's text is the shortest that reads back as the same float32: 0.4, not 0.4000000059604645.
    return [float(str(value)) for value in buffer.flatten().cpu().numpy()]
