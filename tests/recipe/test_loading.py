"""From a YAML file and overrides to a checked recipe: every mistake names its place and what to type instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kdeploy import recipe as recipes
from kdeploy.errors import UserError
from kdeploy.recipe import catalogue
from kdeploy.recipe.loading import dump, load, read_yaml
from kdeploy.recipe.schema import Recipe

BASE = """\
name: small
data: {source: sklearn-digits, validation: 0.1}
teacher:
  model: resnet20
  train: {epochs: 2}
student: {model: resnet8, width: 0.5}
distill:
  method: kd
  options: {temperature: 4}
engines:
  - {engine: onnxruntime}
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write(tmp_path, BASE)


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def refused(file: Path, *overrides: str) -> str:
    """The sentence with which the recipe is refused."""
    with pytest.raises(UserError) as caught:
        load(str(file), overrides)
    return str(caught.value)


def changed(folder: Path, old: str, new: str) -> str:
    assert BASE.count(old) == 1
    return refused(write(folder, BASE.replace(old, new)))


def test_a_good_recipe_is_loaded(written: Path) -> None:
    recipe = load(str(written))
    assert (recipe.name, recipe.student.width, recipe.distill.options) == ("small", 0.5, {"temperature": 4})


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("width", "widht", "{file}, line 6: there is no key 'student.widht'. Did you mean 'width'?"),
        ("name: small", "name: small\nTeacher: 1", "{file}, line 2: there is no key 'Teacher'. Did you mean 'teacher'"),
        ("{engine: onnx", "{engin: onnx", "{file}, line 11: there is no key 'engines.0.engin'. Did you mean 'engine'?"),
        ("{epochs: 2}", "{epochs: x}", "{file}, line 5: teacher.train.epochs must be a valid integer"),
        ("{epochs: 2}", "{epochs: 0}", "{file}, line 5: teacher.train.epochs must be greater than 0 (given: 0)."),
        ("{epochs: 2}", "3", "{file}, line 5: teacher.train must be a mapping of keys (given: 3)."),
        ("validation: 0.1", "validation: .inf", "{file}, line 2: data.validation must be"),
        ("  model: resnet20\n", "", "{file}, line 3: the key 'teacher.model' is missing."),
        ("name: small\n", "", "{file}: the key 'name' is missing."),
        ("name: small", "name: a b", "{file}, line 1: name must be text of pattern"),
        ("name: small", "name: small\n1: 2", "{file}: 1 must be a key that is text"),
        ("  train: {epochs: 2}\n", "", "{file}, line 3: teacher: the teacher needs `train`, or `checkpoint`, or both."),
        (
            "- {engine: onnxruntime}",
            "[{}, {}]",
            "{file}: the recipe: the engine onnxruntime-float32 is listed twice: give one a variant",
        ),
        ("name: small", "seed: -1\nname: small", "{file}, line 1: seed must be greater than or equal to 0"),
        ("name: small", "name: small\nname: two", "{file}, line 2: the key 'name' is here a second time; the first is"),
    ],
)
def test_a_mistake_names_file_line_and_key(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    said = changed(tmp_path, old, new)
    assert said.startswith(sentence.format(file=tmp_path / "recipe.yaml"))
    assert "\n" not in said
    assert "pydantic" not in said


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("method: kd", "method: kdd", "line 8: There is no method 'kdd'. Did you mean 'kd'?"),
        ("sklearn-digits", "sklearn-digit", "line 2: There is no data source 'sklearn-digit'. Did you mean"),
        ("resnet20", "resnet21", "line 4: There is no network 'resnet21'. Did you mean 'resnet"),
        ("resnet8", "reznet8", "line 6: There is no network 'reznet8'. Did you mean 'resnet8"),
        (
            "{engine: onnxruntime}",
            "{engine: onnxruntime, precision: bfloat16}",
            "line 11: The engine onnxruntime runs no bfloat16, only float32, float16, int8, mixed.",
        ),
        (
            "{engine: onnxruntime}",
            "{engine: pytorch}",
            "line 11: each network is measured in pytorch anyway, as the baseline, in eager mode: leave it out of",
        ),
        (
            "{engine: onnxruntime}",
            "{engine: pytorch, variant: compiled, options: {compiled: true}}",
            "line 11: The engine pytorch has no option 'compiled'. Did you mean 'compile'?",
        ),
        (
            "{engine: onnxruntime}",
            "{engine: openvino, options: {streams: 2}}",
            "line 11: The engine openvino has no option 'streams'. It has none.",
        ),
        ("onnxruntime", "onnxruntim", "line 11: There is no engine 'onnxruntim'. Did you mean 'onnxruntime'?"),
        ("onnxruntime", "pytorch", "line 11: each network is measured in pytorch anyway"),
        ("method: kd", "procedure: offlin", "line 8: There is no procedure 'offlin'. Did you mean 'offline'?"),
    ],
)
def test_a_name_of_nothing_names_the_nearest(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    said = changed(tmp_path, old, new)
    assert said.startswith(f"{tmp_path / 'recipe.yaml'}, ")
    assert sentence in said


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("5", "distill.method must be a valid string or a list (given: 5)."),
        ("[{method: kd, wieght: 1}]", "there is no key 'distill.method.0.wieght'. Did you mean 'weight'?"),
        ("[{weight: 1}]", "the key 'distill.method.0.method' is missing."),
    ],
)
def test_of_several_forms_the_one_that_was_meant_is_explained(tmp_path: Path, value: str, sentence: str) -> None:
    assert changed(tmp_path, "method: kd", f"method: {value}") == f"{tmp_path / 'recipe.yaml'}, line 8: {sentence}"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("test", "data.normalize must be a mapping of keys or 'train' (given: 'test')."),
        ("{mean: [0.5]}", "the key 'data.normalize.std' is missing."),
        ("{mean: [0.5], std: [0]}", "data.normalize: every std must be above 0."),
        ("{mean: [0.5, 0.5], std: [1]}", "data.normalize: mean has 2 channels and std has 1."),
    ],
)
def test_normalize(tmp_path: Path, value: str, sentence: str) -> None:
    said = changed(tmp_path, "validation: 0.1", f"normalize: {value}")
    assert said == f"{tmp_path / 'recipe.yaml'}, line 2: {sentence}"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("distill.schedule=multistep", "the schedule multistep needs milestones"),
        ("distill.milestones=[3]", "milestones belong to the schedule multistep, and this one is cosine"),
        ("distill={nesterov: true, optimizer: adamw}", "nesterov needs the optimizer sgd"),
        ("gates.student_gain_points=1", "compares with the student alone"),
        (
            "distill.taps={student: [layer1, layer2], teacher: [layer1]}",
            "taps go in pairs, and there are 2 of the stud",
        ),
        ("distill.method=[{method: kd}]", "options and weight belong to each entry of the list"),
        ("bundle.engine=onnxruntime-int8", "'onnxruntime-int8' is not among the engines of this recipe: auto, onnxr"),
    ],
)
def test_what_would_be_ignored_is_refused(written: Path, value: str, sentence: str) -> None:
    assert sentence in refused(written, "distill.baseline=none", value)


def test_several_mistakes_are_several_lines(tmp_path: Path) -> None:
    file = write(tmp_path, BASE.replace("width", "widht").replace("epochs: 2", "epochs: x"))
    assert [line.partition(": ")[0] for line in refused(file).splitlines()] == [f"{file}, line 5", f"{file}, line 6"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: [1, 2", ", line 1: this is not valid YAML: "),
        ("a: 1\nb: {", ", line 2: this is not valid YAML: "),
        ("a: 2026-13-45", ": this is not valid YAML: month must be"),
        (
            "a: !!python/object/apply:os.system [ls]",
            ", line 1: this is not valid YAML: could not determine a construct",
        ),
        ("- 1", ": a recipe is a mapping of keys such as name, data, teacher; this file is not."),
        ("", ": a recipe is a mapping of keys"),
        ("a: 1\n---\nb: 2", ", line 2: this is not valid YAML: but found another document"),
    ],
)
def test_what_is_not_a_mapping_in_yaml(tmp_path: Path, text: str, sentence: str) -> None:
    file = write(tmp_path, text)
    assert refused(file).startswith(f"{file}{sentence}")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    assert refused(file).startswith(f"{file} cannot be read: ")


def test_an_alias_of_itself_ends(tmp_path: Path) -> None:
    content, places = read_yaml(write(tmp_path, "a: &a {b: *a}"))
    assert content["a"]["b"] is content["a"]
    assert set(places) == {("a",), ("a", "b")}


@pytest.mark.parametrize("name", ["nothing.yaml", "folder/nothing.yml"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    assert (
        refused(tmp_path / name)
        == f"There is no recipe file {tmp_path / name}. `kdeploy recipes` lists the shipped ones."
    )


def test_a_missing_name() -> None:
    assert refused(Path("quikstart")) == (
        "There is no recipe 'quikstart', neither a file nor a shipped one. Did you mean 'quickstart'?"
    )


def test_a_number_with_an_exponent_is_a_number_everywhere(tmp_path: Path) -> None:
    file = write(tmp_path, BASE.replace("{temperature: 4}", "{temperature: 4e0, alpha: 9e-1}"))
    recipe = load(str(file), ["distill.weight_decay=1e-4", "teacher.options.x=1E+2"])
    assert recipe.distill.options == {"temperature": 4.0, "alpha": 0.9}
    assert recipe.distill.weight_decay == 1e-4
    assert recipe.teacher.options == {"x": 100.0}


@settings(max_examples=40, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.booleans() | st.none() | st.integers())
def test_any_option_survives_the_way_through_the_file(value: Any) -> None:
    recipe = load("quickstart")
    recipe = recipe.model_copy(update={"student": recipe.student.model_copy(update={"options": {"value": value}})})
    options = read_text(dump(recipe))["student"]["options"]
    assert options == {"value": value}
    assert type(options["value"]) is type(value)


def read_text(text: str) -> dict[str, Any]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        content, _ = read_yaml(write(Path(folder), text))
    return content


class TestOverrides:
    def test_nested_and_in_lists(self, written: Path) -> None:
        recipe = load(
            str(written),
            [
                "distill.options.temperature=2.5",
                "engines.0.precision=int8",
                "data.augment={crop: 1, flip: false}",
                "gates.int8_drop_points=",
                "about=a=b",
            ],
        )
        assert recipe.distill.options == {"temperature": 2.5}
        assert recipe.engines[0].precision == "int8"
        assert (recipe.data.augment.crop, recipe.data.augment.flip) == (1, False)
        assert recipe.gates.int8_drop_points is None
        assert recipe.about == "a=b"

    def test_the_last_of_two_counts(self, written: Path) -> None:
        assert load(str(written), ["seed=1", "seed=2"]).seed == 2

    @pytest.mark.parametrize(
        ("override", "sentence"),
        [
            ("distill.epoch=3", "--set distill.epoch: there is no key 'distill.epoch'. Did you mean 'epochs'?"),
            ("techer.width=2", "--set techer.width: there is no key 'techer'. Did you mean 'teacher'?"),
            ("distill.epochs=many", "--set distill.epochs: distill.epochs must be a valid integer"),
            ("distill={epochs: many}", "--set distill: distill.epochs must be a valid integer"),
            ("teacher={model: resnet21, train: {}}", "--set teacher: There is no network 'resnet21'."),
            (
                "distill.method.0.weight=1",
                "--set 'distill.method.0.weight=1': distill.method is a single value and has",
            ),
            ("name.x=1", "--set 'name.x=1': name is a single value and has no 'x'."),
            ("engines.1.engine=x", "--set 'engines.1.engine=x': the list has entries 0 to 0, not '1'."),
            ("engines.first.engine=x", "--set 'engines.first.engine=x': the list has entries 0 to 0, not 'first'."),
            ("seed", "--set 'seed' must be written a.b=value, for example --set distill.epochs=5."),
            ("=3", "--set '=3' must be written a.b=value"),
            ("a..b=3", "--set 'a..b=3' must be written a.b=value"),
            ("data=[1", "--set 'data=[1': the value is not valid YAML: "),
            ("data.root=/does/not/exist", "there is no folder"),
        ],
    )
    def test_a_mistake_names_the_override(self, written: Path, override: str, sentence: str) -> None:
        said = (
            refused(written, "data.source=imagefolder", override) if "root" in override else refused(written, override)
        )
        assert sentence in said
        assert "\n" not in said

    def test_a_path_starts_from_the_current_folder(
        self, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = tmp_path / "here"
        here.mkdir()
        (here / "weights.pt").touch()
        monkeypatch.chdir(here)
        for override in ("teacher.checkpoint=weights.pt", "teacher={model: resnet20, checkpoint: weights.pt}"):
            assert load(str(written), [override]).teacher.checkpoint == str(here / "weights.pt")

    def test_a_path_in_the_file_starts_from_the_files_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write(tmp_path / "recipes", BASE.replace("  model: resnet20", "  model: resnet20\n  checkpoint: w.pt"))
        (tmp_path / "recipes" / "w.pt").touch()
        monkeypatch.chdir(tmp_path)
        assert load("recipes/recipe.yaml").teacher.checkpoint == str(tmp_path / "recipes" / "w.pt")
        file.with_name("w.pt").unlink()
        assert refused(Path("recipes/recipe.yaml")) == (f"{file}, line 5: there is no file {file.with_name('w.pt')}.")


class TestChecks:
    def test_a_source_of_files_needs_a_place(self, written: Path) -> None:
        assert refused(written, "data.source=imagefolder") == (
            "--set data.source: the source imagefolder needs a place. Type --set data.root=PATH."
        )

    def test_somebody_elses_checkpoint_says_what_to_type(self) -> None:
        said = refused(Path("cifar10/resnet56-resnet8-kd"))
        assert "--set teacher.checkpoint=PATH" in said
        assert "akamaster/pytorch_resnet_cifar10" in said

    def test_what_is_not_installed_keeps_its_own_exit_status(
        self, written: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from kdeploy import models
        from kdeploy.errors import Unavailable, missing_extra

        def check(name: str) -> None:
            raise missing_extra("timm", "timm", "timm:x")

        monkeypatch.setattr(models, "check", check)
        with pytest.raises(Unavailable, match=r"line 4: timm:x needs timm"):
            load(str(written))


@pytest.mark.parametrize("name", catalogue.single())  # those of a matrix: test_matrix.py
def test_each_shipped_recipe_says_what_it_shows_and_is_checked(name: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.pt"
    checkpoint.touch()
    content, _ = read_yaml(recipes.find(name))
    asks = content.get("teacher", {}).get("sha256") is not None
    nowhere = content["data"]["source"] == "idx"
    overrides = [f"teacher.checkpoint={checkpoint}"] * asks + [f"data.root={tmp_path}"] * nowhere
    recipe = load(name, overrides)
    assert recipes.about(name) == recipe.about != ""


def test_what_is_written_out_is_whole_and_loads_as_the_same(tmp_path: Path) -> None:
    recipe = load("quickstart", ["seed=3"])
    text = dump(recipe)
    file = write(tmp_path, text)
    assert load(str(file)) == recipe
    assert dump(load(str(file))) == text
    assert_nothing_left_out(yaml.safe_load(text), recipe)


def assert_nothing_left_out(content: Any, part: Any) -> None:
    if hasattr(part, "model_fields_set"):
        assert list(content) == list(type(part).model_fields)
        for name, inner in content.items():
            assert_nothing_left_out(inner, getattr(part, name))
    elif isinstance(part, tuple):
        for inner, entry in zip(content, part, strict=True):
            assert_nothing_left_out(inner, entry)


def test_the_schema_is_json_schema_with_every_key_described() -> None:
    schema = json.loads(json.dumps(Recipe.model_json_schema()))
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["required"] == ["name", "student"]
    assert schema["additionalProperties"] is False
    referenced = {word.rpartition("/")[2] for word in _references(schema)}
    assert referenced == set(schema["$defs"])


def _references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["$ref"]] if "$ref" in schema else []
        return own + [found for value in schema.values() for found in _references(value)]
    return [found for value in schema for found in _references(value)] if isinstance(schema, list) else []
