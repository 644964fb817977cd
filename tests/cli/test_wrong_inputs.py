"""Whatever is given wrongly is answered by one sentence and its exit status, through the real verb."""

import re
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from kdeploy.cli import main
from kdeploy.cli.verbs import Interrupted
from tests.cli.answer import COMMAND, short

RUN = "runs/quickstart"


def written(text: str) -> str:
    Path("mine.yaml").write_text(text)
    return "mine.yaml"


def pictures(root: Path, per_class: int = 12) -> Path:
    """A folder of small pictures in two classes."""
    random = np.random.default_rng(0)
    for klass in ("cat", "dog"):
        (root / klass).mkdir(parents=True)
        for number in range(per_class):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / klass / f"{number}.png")
    return root


def on_pictures(root: Path) -> list[str]:
    return ["--set", "data.source=imagefolder", "--set", f"data.root={root}", *short()]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "quickstrat"], "no recipe 'quickstrat', neither a file nor a shipped one. Did you mean 'quickstart'?"),
        (["run", "mine.yaml"], "There is no recipe file mine.yaml. `kdeploy recipes` lists the shipped ones."),
        (["run", "quickstart", "--set", "distill.epoch=3"], "--set distill.epoch: there is no key 'distill.epoch'."),
        (["run", "quickstart", "--set", "distill.epochs=many"], "--set distill.epochs: "),
        (["run", "quickstart", "--set", "distill.epochs"], "must be written a.b=value"),
        (["run", "quickstart", "--set", "engines.7.precision=int8"], "the list has entries 0 to 1, not '7'"),
        (["run", "quickstart", "--set", "distill.method=dk"], "Did you mean 'dkd'?"),
        (
            ["run", "quickstart", "--set", "student.model=resnet9"],
            "There is no network 'resnet9'. Did you mean 'resnet",
        ),
        (["run", "quickstart", "--set", "data.source=imagefolder"], "needs a place. Type --set data.root=PATH."),
        (["run", "quickstart", "--set", "teacher.checkpoint=gone.pt"], "there is no file"),
        (["run", "quickstart", "--seeds", "0,x"], "--seeds '0,x' must be whole numbers with commas"),
        (["run", "quickstart", "--seeds", "1,1"], "each seed once"),
        (["run", "quickstart", "--device", "gpu"], "There is no device 'gpu'. Choose auto, cpu, cuda, cuda:N or mps."),
        (["run", "cifar10/resnet56-resnet8-kd"], "--set teacher.checkpoint=PATH"),
        (["distill", "quickstart", "--set", "student.width=-1"], "--set student.width: "),
        (["export", "gone"], "There is no run folder gone. There is no network 'gone'."),
        (["export", "resnet8", "--checkpoint", "gone.pt"], "There is no file gone.pt."),
        (["export", "resnet8", "--shape", "32"], "--shape '32' must be written CxHxW, for example 3x32x32."),
        (
            ["bench", "gone"],
            "There is no gone. Give an engine folder, a run's folder, a bundle (.kdz) or an",
        ),
        (["report", "gone"], "gone is not a run: it has no run.json. `kdeploy runs` lists the runs."),
        (["bundle", "gone"], "gone is not a run"),
        (["predict", "gone.kdz", "x.png"], "There is no bundle gone.kdz."),
        (["runs", "gone"], "There is no folder gone."),
        (["runs", "--delete", "gone", "--yes"], "gone is not a run"),
        (["recipes", "gone"], "There is no recipe 'gone'"),
        (["recipes", "quickstart", "--schema"], "leave out NAME and --json"),
        (["methods", "gone"], "There is no method 'gone'. Choose from: at, "),
        (["models", "gone"], "There is no network 'gone'."),
        (["models", "--taps"], "Type: kdeploy models NAME --taps"),
        (["models", "resnet8", "--shape", "3x0x32"], "--shape '3x0x32' must be written CxHxW"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_sentence_and_status_2(words, sentence, empty, kdeploy):
    answer = kdeploy(*words)
    assert answer.status == 2
    assert answer.out == ""
    assert sentence in answer.said
    assert answer.err.count("kdeploy: ") == 1
    assert len(answer.said.splitlines()) == 1
    assert list(empty.iterdir()) == [], "nothing was begun"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?"),
        (["run"], "Missing argument 'RECIPE'."),
        (["run", "quickstart", "--sed", "1"], "No such option: --sed"),
        (["export", "resnet8", "--opset", "12"], "Invalid value for '--opset'"),
        (["bench", "x", "--batch", "0"], "Invalid value for '--batch'"),
    ],
    ids=" ".join,
)
def test_what_typer_refuses_is_status_2_too(words, sentence, empty, kdeploy):
    answer = kdeploy(*words)
    assert answer.status == 2
    assert sentence in answer.err


def test_an_unknown_key_names_file_line_and_nearest(empty, kdeploy):
    recipe = yaml.safe_load(kdeploy("recipes", "quickstart").out)
    recipe["distill"]["epohcs"] = recipe["distill"].pop("epochs")
    text = yaml.safe_dump(recipe)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "epohcs" in line)
    answer = kdeploy("run", written(text))
    assert answer.status == 2
    assert re.search(
        rf"mine\.yaml, line {line}: there is no key 'distill\.epohcs'\. Did you mean 'epochs'\?", answer.said
    )


def test_a_recipe_that_is_no_yaml_names_the_line(empty, kdeploy):
    answer = kdeploy("run", written("name: x\ndata: {source: [\n"))
    assert answer.status == 2
    assert "mine.yaml, line " in answer.said


def test_an_option_that_the_method_lacks_stops_before_anything_is_trained(empty, kdeploy):
    answer = kdeploy("run", "quickstart", *short(), "--set", "distill.options={temprature: 4}")
    assert answer.status == 2
    assert "'temperature'" in answer.said
    assert not list(empty.rglob("*.safetensors"))


def test_a_corrupt_picture_is_named_before_training(empty, kdeploy):
    root = pictures(empty / "data")
    whole = (root / "dog" / "7.png").read_bytes()
    (root / "dog" / "7.png").write_bytes(whole[: len(whole) // 2])
    answer = kdeploy("run", "quickstart", *on_pictures(root))
    assert answer.status == 2
    assert "dog/7.png" in answer.said
    assert not Path(RUN, "networks").exists()


def test_a_zip_that_points_outside_is_refused(empty, kdeploy):
    with zipfile.ZipFile("data.zip", "w") as archive:
        archive.writestr("../outside.png", b"x")
    answer = kdeploy("run", "quickstart", *on_pictures(Path("data.zip")))
    assert answer.status == 2
    assert "../outside.png" in answer.said
    assert not (empty.parent / "outside.png").exists()


def test_a_bundle_that_points_outside_is_refused(place, kdeploy):
    with zipfile.ZipFile("evil.kdz", "w") as archive:
        archive.writestr("../outside.png", b"x")
    answer = kdeploy("predict", "evil.kdz", f"{RUN}/digit-7.png")
    assert answer.status == 2
    assert "evil.kdz" in answer.said
    assert not (place.parent / "outside.png").exists()


def test_a_bundle_with_one_flipped_byte(place, kdeploy):
    content = bytearray(Path(RUN, "quickstart.kdz").read_bytes())
    for at in (10, len(content) // 2, len(content) - 5):
        content[at] ^= 1
        Path("flipped.kdz").write_bytes(content)
        content[at] ^= 1
        answer = kdeploy("predict", "flipped.kdz", f"{RUN}/digit-7.png")
        assert answer.status == 2
        assert "flipped.kdz" in answer.said
        assert answer.out == ""


def test_a_picture_that_is_none(place, kdeploy):
    Path("text.png").write_text("no picture")
    answer = kdeploy("predict", f"{RUN}/quickstart.kdz", f"{RUN}/digit-7.png", "text.png")
    assert answer.status == 2
    assert "text.png" in answer.said


def test_an_onnx_file_cut_in_half(place, kdeploy):
    whole = Path(RUN, "export", "student.float32.onnx").read_bytes()
    Path("half.onnx").write_bytes(whole[: len(whole) // 2])
    answer = kdeploy("bench", "half.onnx", "--min-time", "0.02")
    assert answer.status == 2
    assert "half.onnx" in answer.said
    assert len(answer.said.splitlines()) == 1


def test_a_truncated_checkpoint(place, kdeploy):
    whole = Path(RUN, "networks", "teacher", "teacher.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[: len(whole) // 2])
    answer = kdeploy(
        "run", "quickstart", *short(teacher_checkpoint="cut.safetensors", teacher_train="null"), "--out", "x"
    )
    assert answer.status == 2
    assert "cut.safetensors" in answer.said


def test_a_pickle_that_asks_for_more_is_refused(empty, kdeploy):
    import torch

    torch.save({"layer": Path("x")}, "code.pt")
    answer = kdeploy("run", "quickstart", *short(teacher_checkpoint="code.pt", teacher_train="null"))
    assert answer.status == 2
    assert "code.pt" in answer.said


def test_a_teacher_with_its_classes_in_another_order(place, kdeploy):
    """Status 3 and the map that mends it; with the map it teaches as well as before."""
    from safetensors.torch import load_file, save_file

    weights = load_file(f"{RUN}/networks/teacher/teacher.safetensors")
    order = [3, 7, 0, 9, 1, 8, 2, 6, 4, 5]
    for name in ("fc.weight", "fc.bias"):
        weights[name] = weights[name][order].contiguous()
    save_file(weights, "shuffled.safetensors")
    words = ["distill", "quickstart", *short(teacher_checkpoint="shuffled.safetensors", teacher_train="null")]
    answer = kdeploy(*words, "--out", "shuffled")
    assert answer.status == 3
    assert "near chance on validation" in answer.said
    found = re.search(r"teacher\.class_map: (\[[0-9, ]+\]) would give ([0-9.]+)%", answer.said)
    assert found
    assert yaml.safe_load(found[1]) == [order.index(label) for label in range(10)]
    answer = kdeploy(*words, "--set", f"teacher.class_map={found[1]}", "--out", "mended")
    assert answer.status == 0, answer.err
    assert f"the teacher's checkpoint: {found[2]}% on 143 validation images" in answer.err


def test_a_device_that_is_not_here_is_status_5_and_leaves_nothing(empty, kdeploy):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    answer = kdeploy("run", "quickstart", "--device", "cuda")
    assert answer.status == 5
    assert "The device cuda is not to be had here. `kdeploy doctor` says what this machine has." in answer.said
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("verb", ["run", "distill"])
def test_nothing_to_resume_leaves_nothing(verb, empty, kdeploy):
    answer = kdeploy(verb, "quickstart", *short(), "--resume", "--out", "x")
    assert answer.status == 2
    assert answer.said == "There is nothing to resume in x: without --resume the run begins there."
    assert not list(empty.iterdir())


def test_no_seed_to_resume(empty, kdeploy):
    answer = kdeploy("run", "quickstart", *short(), "--resume", "--seeds", "0,1", "--out", "x")
    assert answer.said == "There is nothing to resume in x/seed-0, x/seed-1: without --resume the run begins there."


def test_resume_and_fresh_contradict_each_other(empty, kdeploy):
    answer = kdeploy("run", "quickstart", *short(), "--resume", "--fresh")
    assert answer.status == 2
    assert answer.said == "--resume goes on with a run and --fresh removes it: leave one of them out."


def test_a_bug_of_ours_shows_where_it_is_and_where_to_report_it(empty, kdeploy, monkeypatch):
    def broken(board: str | None) -> None:
        raise ZeroDivisionError("seven by nought")

    monkeypatch.setattr("kdeploy.machine.doctor.examine", broken)
    answer = kdeploy("doctor")
    assert answer.status == 1
    assert "Traceback" in answer.err
    assert "ZeroDivisionError: seven by nought" in answer.err
    assert "this is a bug of ours. Please report it with the lines above: https://" in answer.err


def test_interrupted_names_the_line_that_goes_on_and_leaves_out_fresh(empty, kdeploy, monkeypatch):
    monkeypatch.setattr("kdeploy.recipe.load", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    answer = kdeploy("run", "quickstart", "--fresh", "--set", "about=two words")
    assert answer.status == 130
    assert answer.err.strip() == "kdeploy: interrupted. To go on: kdeploy run quickstart --set 'about=two words'"


def test_a_signal_has_its_own_status():
    with pytest.raises(Interrupted) as raised:
        main._end(15, None)
    assert raised.value.exit_status == 143


def test_a_disk_that_is_full_is_no_bug(empty, kdeploy):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "recipes"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_no_bug(empty, kdeploy):
    answer = kdeploy("recipes", "--json", "/proc/x.json")
    assert answer.status == 2
    assert answer.said.startswith("/proc/x.json cannot be written")
