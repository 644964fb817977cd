"""Recipes from a matrix: as many as the published tables have cells, with the figures and settings of those tables."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import kdeploy.methods
from kdeploy import recipe as recipes
from kdeploy.errors import UserError
from kdeploy.recipe import catalogue, dump, load
from kdeploy.recipe.schema import Recipe

(MATRIX,) = catalogue.matrices()
CELLS = [(name.split("/")[1], name.split("/")[2]) for name in MATRIX.names()]

# Cells of each method: 13 pairs in the two tables of last epochs, the rest in the later ones.
COUNTS = {
    **dict.fromkeys(("fitnet", "at", "sp", "cc", "vid", "rkd", "pkt", "factor-transfer", "nst", "crd", "crd-kd"), 13),
    **{
        "kd": 17,
        "reviewkd": 11,
        "dkd": 16,
        "dist": 6,
        "kd-ls": 14,
        "dkd-ls": 14,
        "simkd": 1,
        "pefd": 0,
        "nkd": 0,
        "hssakd": 8,
    },
}


@pytest.fixture(scope="module")
def every() -> dict[tuple[str, str], Recipe]:
    """All recipes of the matrix, loaded as a user's are."""
    return {(pair, method): load(f"cifar100/{pair}/{method}") for pair, method in CELLS}


def published(pair: str, method: str) -> tuple[float, str, str] | None:
    found = MATRIX.published(pair, method)
    return None if found is None else (found["accuracy_percent"], found["protocol"], found["mark"])


def test_each_recipe_is_valid_and_says_what_it_is(every: dict[tuple[str, str], Recipe]) -> None:
    assert len({recipe.name for recipe in every.values()}) == len(every) == 17 * 21 - 1
    for (pair, method), recipe in every.items():
        assert f"{recipe.teacher.model}-{recipe.student.model}" == pair
        assert MATRIX._content["methods"][method]["form"] in recipe.about
        assert recipe.about == recipes.about(f"cifar100/{pair}/{method}")
        assert dump(recipe).count("\npublished:") == 1


def test_each_method_takes_its_options(every: dict[tuple[str, str], Recipe]) -> None:
    terms = {(term.method, json.dumps(term.options)) for recipe in every.values() for term in recipe.distill.methods}
    for method, options in terms:
        kdeploy.methods.create(method, **json.loads(options))


def test_every_method_has_a_recipe_or_a_reason() -> None:
    used = {term.method for method in MATRIX.methods for term in load(f"cifar100/vgg13-vgg8/{method}").distill.methods}
    assert used <= set(kdeploy.methods.names())
    assert not used & set(MATRIX.elsewhere)
    assert {"at", "cc", "crd", "dist", "dkd", "factor-transfer", "fitnet", "kd", "nkd", "nst", "pefd", "pkt"} <= used
    assert {"hssakd", "reviewkd", "rkd", "simkd", "sp", "vid"} <= used


def test_there_are_as_many_figures_as_the_tables_have_cells() -> None:
    counted = {method: sum(published(pair, method) is not None for pair in MATRIX.pairs) for method in MATRIX.methods}
    assert counted == COUNTS
    assert sum(counted.values()) == 230


@pytest.mark.parametrize(
    ("pair", "method", "figure"),
    [
        ("resnet56-resnet20", "kd", (70.66, "last epoch", "verified")),
        ("resnet56-resnet20", "dkd", (71.97, "best test epoch", "verified")),
        ("resnet110-resnet20", "dkd", (71.06, "best test epoch", "verified")),
        ("resnet110-resnet32", "crd-kd", (73.75, "last epoch", "recalled")),
        ("resnet32x4-shufflenetv2", "reviewkd", (77.78, "best test epoch", "recalled")),
        ("wrn_40_2-mobilenetv2", "dkd-ls", (70.01, "best test epoch", "verified")),
        ("resnet50-vgg8", "crd", (74.30, "last epoch", "verified")),
        ("resnet50-mobilenetv2", "hssakd", (78.79, "best test epoch", "verified")),
        ("wrn_40_2-mobilenetv2", "at", None),
        ("resnet56-resnet20", "pefd", None),
    ],
)
def test_a_recipe_carries_its_figure(
    every: dict[tuple[str, str], Recipe], pair: str, method: str, figure: tuple[float, str, str] | None
) -> None:
    spec = every[pair, method].published
    assert (None if spec is None else (spec.accuracy_percent, spec.protocol, spec.mark)) == figure


@pytest.mark.parametrize(
    ("pair", "method", "weight", "options"),
    [
        ("resnet56-resnet20", "dkd", 1, {"beta": 2, "temperature": 4, "warmup": 20}),
        ("vgg13-mobilenetv2", "dkd", 1, {"beta": 6}),
        ("wrn_40_2-shufflenetv1", "dkd", 1, {"beta": 8}),
        ("resnet56-resnet20", "dkd-ls", 18, {"beta": 2, "temperature": 3, "standardize": True}),
        ("resnet32x4-resnet8x4", "dkd-ls", 9, {"beta": 8, "temperature": 2}),
        ("resnet110-resnet20", "kd-ls", 12, {"temperature": 4, "standardize": True}),
        ("resnet50-mobilenetv2", "kd-ls", 1, {"temperature": 3}),
        ("resnet32x4-shufflenetv2", "reviewkd", 8, {}),
        ("resnet56-resnet20", "reviewkd", 0.6, {}),
        ("vgg13-vgg8", "fitnet", 100, {"form": "code"}),
        ("vgg13-vgg8", "at", 1000, {"form": "code"}),
        ("vgg13-vgg8", "sp", 3000, {}),
        ("vgg13-vgg8", "pkt", 30000, {}),
        ("vgg13-vgg8", "factor-transfer", 200, {"form": "repdistiller", "paraphraser_epochs": 30}),
    ],
)
def test_settings_are_those_of_the_pair(
    every: dict[tuple[str, str], Recipe], pair: str, method: str, weight: float, options: dict[str, object]
) -> None:
    (term,) = every[pair, method].distill.methods
    assert term.weight == weight
    assert options.items() <= term.options.items()


@pytest.mark.parametrize(
    ("pair", "student", "teacher"),
    [
        ("vgg13-vgg8", ["layer2", "layer3", "layer4", "layer5"], ["layer2", "layer3", "layer4", "layer5"]),
        ("resnet50-mobilenetv2", ["layer1", "layer2", "layer3", "layer4"], ["layer1", "layer2", "layer3", "layer4"]),
        ("resnet32x4-shufflenetv2", ["layer1", "layer2", "layer3"], ["layer1", "layer2", "layer3"]),
    ],
)
def test_stages_that_auto_would_not_find_are_named(
    every: dict[tuple[str, str], Recipe], pair: str, student: list[str], teacher: list[str]
) -> None:
    taps = every[pair, "at"].distill.taps
    assert taps != "auto"
    assert (list(taps.student), list(taps.teacher)) == (student, teacher)
    assert every[pair, "kd"].distill.taps == "auto"
    assert every["resnet56-resnet20", "at"].distill.taps == "auto"


def test_stages_are_named_for_the_methods_that_look_at_them() -> None:
    terms = {method: load(f"cifar100/resnet56-resnet20/{method}").distill.methods for method in MATRIX.methods}
    looking = {
        method
        for method, chosen in terms.items()
        if any(kdeploy.methods.find(term.method).needs.features is not None for term in chosen)
    } | {"fitnet"}  # which has no recipe for one pair
    looking -= {"hssakd"}  # whose heads branch off where its own paper has them
    assert set(MATRIX._content["taps"]["methods"]) == looking


def test_the_protocol_is_that_of_the_tables(every: dict[tuple[str, str], Recipe]) -> None:
    small = ("mobilenetv2", "shufflenetv1", "shufflenetv2")
    for (_, method), recipe in every.items():
        light = recipe.student.model in small
        expected = (128, 0.02 if light else 0.1) if method == "reviewkd" else (64, 0.01 if light else 0.05)
        assert (recipe.distill.batch, recipe.distill.lr) == expected
        assert recipe.distill.nesterov == (method in ("reviewkd", "hssakd"))
        assert recipe.teacher.train is not None
        for spec in (recipe.teacher.train, recipe.distill):
            assert (spec.epochs, spec.milestones, spec.weight_decay) == (240, (150, 180, 210), 5e-4)


def test_a_pair_whose_settings_are_not_known_says_so() -> None:
    assert "were not to be found" in recipes.about("cifar100/resnet110-resnet20/dkd")
    assert "were not to be found" not in recipes.about("cifar100/resnet56-resnet20/dkd")
    assert "were not to be found" not in recipes.about("cifar100/resnet110-resnet20/at")


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("cifar100/resnet56-resnet20/dkdd", "in cifar100/resnet56-resnet20. Did you mean 'dkd'?"),
        ("cifar100/resnet56-resnet2/kd", "There is no pair 'resnet56-resnet2' in cifar100. Did you mean 'resnet56-"),
        ("cifar100/resnet56-resnet20", "add a method, such as cifar100/resnet56-resnet20/kd."),
        ("cifar100/resnet56-resnet20/information-flow", "20/information-flow': the paper of information-flow trains"),
        ("cifar100/wrn_40_2-mobilenetv2/fitnet", "four times as high as the student's, which fitnet cannot bridge."),
        ("resnet56-resnet20/dkd", "Did you mean 'cifar100/resnet56-resnet20/dkd'?"),
        ("x", "There is no recipe 'x', neither a file nor a shipped one. `kdeploy recipes` lists what there is."),
        ("cifar100/matrix", "There is no pair 'matrix' in cifar100. `kdeploy recipes` lists what there is."),
    ],
)
def test_a_name_that_is_not_there_gets_a_short_answer(reference: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        catalogue.find(reference)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_mistake_in_an_override_names_the_recipe_and_its_line() -> None:
    name = "cifar100/resnet56-resnet20/dkd"
    with pytest.raises(UserError, match="milestones belong to the schedule multistep") as caught:
        load(name, ["distill.schedule=cosine"])
    place = re.match(rf"{name}, line (\d+): distill: ", str(caught.value))
    assert place is not None
    assert catalogue.find(name).read_text(encoding="utf-8").splitlines()[int(place[1]) - 1] == "distill:"


def test_what_is_printed_is_a_recipe_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for name in ("cifar100/resnet56-resnet20/dkd", "cifar100/vgg13-vgg8/crd-kd"):
        file.write_text(catalogue.find(name).read_text(encoding="utf-8"), encoding="utf-8")
        assert load(str(file)) == load(name)


ROWS = {"FT": "factor-transfer", "FT (RepDistiller variant)": "factor-transfer", "DKD (mdistiller)": "dkd"}
ROWS |= {"KD+LS": "kd-ls", "DKD+LS": "dkd-ls", "CRD+KD": "crd-kd", "KD (LSKD table)": "kd"}
NETWORKS = {"R": "resnet", "WRN": "wrn_", "VGG": "vgg", "MBV": "mobilenetv", "ShuV": "shufflenetv", "32x": "resnet32x"}


def network(short: str) -> str:
    """`WRN40-2` as `wrn_40_2`; a bare `40-1` or `8x4` takes the family from its own look."""
    if re.fullmatch(r"\d+-\d", short):
        short = f"WRN{short}"
    if re.fullmatch(r"\d+x4", short):
        short = f"R{short}"
    family, number = re.fullmatch(r"([A-Za-z]*)(.*)", short).groups()  # type: ignore[union-attr]
    if not family:
        family = "VGG"
    return NETWORKS[family] + number.replace("-", "_")


def hsakd_table(section: str) -> dict[tuple[str, str], tuple[float, str]]:
    """The last column but one, HSAKD, of a table with a pair in each row."""
    found: dict[tuple[str, str], tuple[float, str]] = {}
    for pair, figure in re.findall(r"^\| (\S+→\S+) \|.*\| (\d+\.\d+)±\S+ \| \S+ \|$", section, re.MULTILINE):
        names = re.sub(r"WRN-(\d+)-(\d)", r"wrn_\1_\2", pair).lower().replace("shufflev", "shufflenetv")
        teacher, student = re.sub(r"→(?=\d)", "→resnet", names).split("→")
        found[f"{teacher}-{student}", "hssakd"] = float(figure), "verified"
    return found


def test_every_figure_is_the_one_in_the_notes(shared: Path) -> None:
    """All cells of the tables in the collected notes, and no others."""
    notes = shared / "methods" / "part-a.md"
    if not notes.is_file():
        pytest.skip(f"no {notes.name} in the shared folder")
    text = notes.read_text(encoding="utf-8")
    section = text.split("\n## 13.")[1].split("\n### 13.4")[0]
    found = hsakd_table(text.split("\n## 8.")[1].split("\n## 9.")[0])
    pairs: list[str] = []
    for line in section.splitlines():
        if not line.startswith("|") or line.startswith("|---"):
            continue
        first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if not first:
            pairs = ["-".join(network(side) for side in cell.split("→")) for cell in cells]
            continue
        title = re.sub(r"\s*\[[VR]\]$", "", first).split(" f=2")[0]
        method = ROWS.get(title, title.lower())
        for pair, cell in zip(pairs, cells, strict=True):
            if method in MATRIX.methods and (value := re.match(r"\d+\.\d+", cell)):
                figure = float(value[0]), "recalled" if "[R]" in first else "verified"
                assert found.setdefault((pair, method), figure) == figure
    ours = {cell: figure for cell in CELLS if (figure := published(*cell)) is not None}
    assert {cell: (value, mark) for cell, (value, _, mark) in ours.items()} == found


@pytest.mark.slow
@pytest.mark.parametrize("pair", MATRIX.pairs)
def test_every_method_fits_every_pair(pair: str, every: dict[tuple[str, str], Recipe]) -> None:
    """Adapters are made, and the loss is finite, on the shapes that the networks have at 32x32."""
    import torch

    from kdeploy import models
    from kdeploy.methods import Context, Outputs
    from kdeploy.models.classifier import Classifier
    from kdeploy.recipe.schema import NetworkSpec
    from kdeploy.training.views import survey

    torch.manual_seed(0)
    student, teacher = (
        Classifier(models.create(NetworkSpec(model=name), classes=100), [0.5] * 3, [0.5] * 3)
        for name in reversed(pair.split("-"))
    )
    labels = torch.tensor([3, 1, 4, 1])
    for method in (method for each, method in CELLS if each == pair):
        distill = every[pair, method].distill
        for term in distill.methods:
            small = {"negatives": 16} if term.method == "crd" else {}
            loss = kdeploy.methods.create(term.method, **{**term.options, **small})
            tapped = survey(student, teacher, [loss.needs], shape=(3, 32, 32), classes=100, taps=distill.taps)
            shapes = [found.shapes for found in tapped]
            loss.build(*shapes)
            if loss.needs.training_labels:
                loss.prepare(torch.arange(200) % 100)
            last = slice(-1, None) if loss.needs.features == "last" else slice(None)
            rows = 4 * loss.needs.rotations
            ours, theirs = (
                Outputs(
                    torch.randn(rows, 100),
                    [torch.randn(rows, *size) for size in s.features][last],
                    torch.randn(rows, s.embedding or 1),
                )
                for s in shapes
            )
            value = loss(ours, theirs, labels, Context(torch.arange(4), epoch=1, epochs=240))
            assert value.isfinite(), (pair, method)


SHRUNK = [
    "data={source: sklearn-digits, validation: 0.1, limit: 200, augment: {crop: 1, flip: false}}",
    "teacher={model: resnet8, width: 0.5, train: {epochs: 3, lr: 0.05}}",
    "student.width=0.25",
    "distill.epochs=1",
    "distill.milestones=[1]",
    "distill.baseline=none",
]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dkd", "crd-kd"])
def test_a_shrunken_one_trains(method: str, tmp_path: Path) -> None:
    from kdeploy import pipeline, published

    recipe = load(f"cifar100/resnet56-resnet20/{method}", SHRUNK)
    run = pipeline.open_run(recipe, tmp_path / "run", device="cpu")
    pipeline.execute(
        run, [*pipeline.training(recipe), *(s for s in pipeline.measuring(recipe) if s.name == "epochs/student")]
    )
    said = published.comparison([run.folder])
    assert said is not None
    assert said.startswith("published  71.")
    assert "sklearn-digits, trained for 1 epoch, 3" in said
