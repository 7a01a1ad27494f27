import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.common.errors import UserError
from stages.common.params import load
from stages.data.params import Data
from sweeps.results import RESULTS
from tests.tools.support import FILTERS, cells, predictions, result, write_results
from tools import picture, report
from tools.models import MODELS

SWEEP = {
    "metric": "test_accuracy",
    "settings": {
        "all": {
            "changes": {},
            "seeds": {"0": {"experiment": "a", "train_cnn": {"test_accuracy": 0.8, "train_accuracy": 0.9}}},
        },
        "no_dropout": {
            "changes": {"reg.dropout": 0},
            "seeds": {"0": {"experiment": "c", "train_cnn": {"test_accuracy": 0.75, "train_accuracy": 1.0}}},
        },
    },
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with results, whose pages were never generated."""
    shutil.copytree(".dvc/plots", tmp_path / ".dvc/plots")
    shutil.copy("params.yaml", tmp_path)
    write_results(tmp_path, MODELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["report", *arguments])
    report.main()


def change(name: str, **values: Any) -> None:
    path = Path(f"metrics/{name}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def append(page: str, text: str) -> None:
    with open(page, "a") as file:
        file.write(text)


def test_generating_fills_the_sections_and_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch)
    text = Path("README.md").read_text()
    assert text.startswith("above\n<!-- results -->\n\n|  ")
    assert text.endswith("\n\n<!-- /results -->\nbelow\n")
    assert "old" not in text
    assert f"an archive with the MD5 `{'0' * 32}`" in text
    assert "| `aug.crop_pad` " in Path("docs/parameters.md").read_text()
    assert Path("docs/performance.md").read_text() == "fast"
    run(monkeypatch, "--check")
    run(monkeypatch)
    assert Path("README.md").read_text() == text


@pytest.mark.parametrize("model", MODELS)
def test_a_training_that_has_not_ended_is_refused_by_name(
    model: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    path = project / f"metrics/{model}.json"
    content = json.loads(path.read_text())
    del content["train_accuracy"]
    before[path] = json.dumps(content).encode()
    path.write_bytes(before[path])
    with pytest.raises(UserError, match=rf"^metrics/{model}.json is of a training that has not ended, after"):
        run(monkeypatch)
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "values", "stale"),
    [
        ("cnn", {"test_loss": 1.0}, "README.md and docs/findings.md"),
        ("cnn", {"history": result(0.6, 3)["history"]}, "docs/accuracy.png and docs/losses.png"),
        (
            "predictions/cnn",
            predictions(0.7),
            "docs/findings.md and docs/classes.png and docs/calibration.png and docs/turned.png",
        ),
        ("cnn", result(0.9), "README.md and docs/findings.md and docs/accuracy.png"),
        ("filters", {"evidence": FILTERS["evidence"] | {"drop_top_fifth": 1.0}}, "docs/findings.md"),
    ],
)
def test_check_names_what_is_stale_and_writes_nothing(
    name: str, values: dict[str, Any], stale: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch)
    files = [Path("README.md"), *Path("docs").iterdir()]
    before = [file.read_bytes() for file in files]
    change(name, **values)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--check")
    assert stopped.value.code == f"stale: {stale}: run 'make readme'"  # printed, and the status is 1
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize(
    ("old", "new", "stale"),
    [
        ("crop_pad: 2", "crop_pad: 3", "docs/parameters.md"),
        # the size of the networks stands in the table of results
        ("  - 512\n", "  - 8\n", "README.md and docs/findings.md and docs/parameters.md"),
    ],
)
def test_another_default_makes_pages_stale(
    old: str, new: str, stale: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch)
    text = Path("params.yaml").read_text()
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new))
    with pytest.raises(SystemExit, match=f"^stale: {stale}: "):
        run(monkeypatch, "--check")


def test_a_sweep_is_shown_where_a_page_has_a_place_for_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RESULTS.mkdir(parents=True)
    (RESULTS / "ablation.json").write_text(json.dumps(SWEEP))
    run(monkeypatch)  # no page has one
    append("docs/findings.md", "<!-- sweep ablation --><!-- /sweep ablation -->\n")
    run(monkeypatch)
    assert "| no dropout |" in " ".join(Path("docs/findings.md").read_text().split())
    settings = {"all": SWEEP["settings"]["all"]}  # type: ignore[index]
    (RESULTS / "ablation.json").write_text(json.dumps(SWEEP | {"settings": settings}))
    with pytest.raises(SystemExit, match=r"^stale: docs/findings\.md: "):
        run(monkeypatch, "--check")


def test_the_headline_is_of_the_models_that_the_seeds_have(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first model has 0.5; that of the second is not among its seeds, so it was trained otherwise."""
    RESULTS.mkdir(parents=True)
    seeds = {
        str(seed): {
            f"train_{model}": {"test_accuracy": accuracy, "train_accuracy": 1, "history": [0.1, accuracy]}
            for model in MODELS[:2]
        }
        for seed, accuracy in enumerate((0.4, 0.5))
    }
    settings = {"defaults": {"changes": {}, "seeds": seeds}, "other": {"changes": {}, "seeds": seeds}}
    (RESULTS / "seeds.json").write_text(json.dumps(SWEEP | {"settings": settings}))
    run(monkeypatch)
    for page in ("README.md", "docs/findings.md"):
        lines = [line for line in Path(page).read_text().splitlines() if "2 seeds" in line]
        assert [cells(line)[0] for line in lines] == [
            ["test accuracy, mean ± deviation of 2 seeds", "**0.4500** ± 0.0707", "", "", ""]
        ]
    change(MODELS[0], test_accuracy=0.51)
    run(monkeypatch)
    assert "seeds" not in Path("README.md").read_text()


def test_what_each_class_gains_is_shown_once_the_seeds_say_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RESULTS.mkdir(parents=True)
    shares = {"cnn": 0.5, "augmented": 0.7, "regularized": 0.6}
    seed = {
        f"train_{model}": {"test_accuracy": share, "train_accuracy": 1, "classes": {"cat": share}}
        for model, share in shares.items()
    }
    content = SWEEP | {"settings": {"defaults": {"changes": {}, "seeds": {"0": seed, "1": seed}}}}
    (RESULTS / "seeds.json").write_text(json.dumps(content))
    append("docs/findings.md", "<!-- gains --><!-- /gains -->\n")
    run(monkeypatch)
    words = " ".join(Path("docs/findings.md").read_text().split())
    gains = "+20.0 (+20.0 to +20.0) | -10.0 (-10.0 to -10.0) | +10.0 (+10.0 to +10.0)"
    assert f"| cat | {gains} |" in words
    (RESULTS / "seeds.json").write_text(json.dumps(SWEEP))  # which tell nothing of classes
    with pytest.raises(UserError, match=r"^docs/findings\.md has <!-- gains -->, but must have one of what"):
        run(monkeypatch)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- results -->\n", "README.md has no <!-- results --> followed by <!-- /results -->"),
        ("<!-- /results --><!-- results -->", "README.md has no <!-- results --> followed by"),
        ("nothing", "README.md has no <!-- results --> followed by <!-- /results -->"),
        (
            "<!-- results --><!-- /results --><!-- sweep seeds -->",
            "README.md has no <!-- sweep seeds --> followed by <!-- /sweep seeds -->",
        ),
        (
            "<!-- results --><!-- /results --><!-- sweep sedes --><!-- /sweep sedes -->",
            "README.md has <!-- sweep sedes -->, but must have one of what is generated: calibration, ",
        ),
    ],
)
def test_wrong_markers_are_named(
    text: str, message: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("README.md").write_text(text)
    with pytest.raises(UserError) as refused:
        run(monkeypatch)
    assert str(refused.value).startswith(message)


def test_a_comment_is_no_marker() -> None:
    text = "<!-- Written by hand, as a whole sentence. --> <!-- prettier-ignore -->"
    assert report.fill(text, {}, Path("docs/performance.md")) == text


def test_a_model_without_metrics_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("metrics/augmented.json").unlink()
    with pytest.raises(UserError, match=r"^metrics/augmented\.json is missing: run 'dvc repro' first$"):
        run(monkeypatch, "--check")


def test_the_page_to_explore_is_kept_in_step(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    assert not Path("docs/explorer.html").exists()  # in a clone, the stage's page is not there
    Path("explorer").mkdir()
    for content in ("one", "two"):
        Path("explorer/filters.html").write_text(content)
        with pytest.raises(SystemExit, match=r"^stale: docs/explorer\.html: "):
            run(monkeypatch, "--check")
        run(monkeypatch)
        assert Path("docs/explorer.html").read_text() == content
        run(monkeypatch, "--check")


def test_a_missing_picture_is_stale(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    Path("docs/accuracy.png").unlink()
    with pytest.raises(SystemExit, match=r"^stale: docs/accuracy\.png: "):
        run(monkeypatch, "--check")


def test_the_picture_shows_a_curve_for_each_model(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    chart = json.loads(Path(".dvc/plots/accuracy.json").read_text())
    colours = chart["encoding"]["color"]["scale"]["range"][: len(MODELS)]
    with Image.open("docs/accuracy.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    plot = pixels[50:, 150 : pixels.shape[1] * 4 // 5]  # without title, axis labels and legend
    highest = [np.nonzero((plot == list(bytes.fromhex(colour[1:]))).all(-1))[0].min() for colour in colours]
    # the curves end at 0.5, 0.6, 0.7 and 0.8
    assert len(highest) == len(MODELS)
    assert highest == sorted(highest, reverse=True)


def test_the_picture_has_a_band_from_the_least_to_the_most_of_the_seeds() -> None:
    epochs = [
        {"rev": "workspace", "filename": f"metrics/{model}.json", "epoch": epoch, "test_accuracy": 0.5}
        for model in ("cnn", "mine")
        for epoch in (1, 2)
    ]
    seeds = pd.DataFrame({"model": ["cnn"] * 3, "history": [[0.4, 0.6], [0.3, 0.9], [0.5, 0.7]]})
    with_band, without = picture.accuracy_chart(epochs, seeds), picture.accuracy_chart(epochs, None)
    rows = [(row.get("least"), row.get("most")) for row in with_band["data"]["values"]]
    assert rows == [(0.3, 0.5), (0.6, 0.9), (None, None), (None, None)]
    area, *layers = with_band["layer"]
    assert [area["mark"], area["encoding"]["y"]["field"], area["encoding"]["y2"]["field"]] == [
        *("area", "least", "most")
    ]
    assert layers == without["layer"]


def test_the_losses_are_shown_in_two_views(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    chart = json.loads(Path(".dvc/plots/losses.json").read_text())
    colours = chart["spec"]["encoding"]["color"]["scale"]["range"][: len(MODELS)]
    with Image.open("docs/losses.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    # all training losses fall from 2 to 1, all test losses stay at 1.25: of the curves the last drawn is seen
    drawn = (pixels == list(bytes.fromhex(colours[-1][1:]))).all(-1)[100:]
    begin = np.nonzero(drawn.any(0))[0][0]
    views = drawn[:, begin : begin + 600], drawn[:, begin + 800 : begin + 1500]
    falling, level = (np.ptp(np.nonzero(view.any(1))[0]) for view in views)
    assert falling > 300
    assert level < 10


def test_results_are_marked_where_the_images_are_not_the_official_ones() -> None:
    official = load(Data).md5
    assert report.archive_note(official, official) == ""
    assert "synthetic images" in report.archive_note(None, official)
    assert f"`{'0' * 32}`; the official archive has `{official}`" in report.archive_note("0" * 32, official)


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--chekc"], 2), (["page.md"], 2)])
def test_arguments_are_checked(arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert stopped.value.code == status
