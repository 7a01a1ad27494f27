import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.common.errors import UserError
from stages.common.params import Params, load
from tools import report


def result(accuracy: float, epochs: int = 2) -> dict[str, Any]:
    return {
        "test_accuracy": accuracy,
        "test_loss": 1.25,
        "train_accuracy": 0.75,
        "parameters": 81578,
        "history": [
            {"epoch": epoch, "test_accuracy": accuracy * epoch / epochs} for epoch in range(1, epochs + 1)
        ],
    }


FILTERS = {
    "evidence": {
        "images": 500,
        "drop_top_fifth": 3.456,
        "drop_moved_fifth": 1.2,
        "drop_scattered_fifth": 0.7,
        "share_top_above_moved": 0.87654,
        "share_top_above_scattered": 0.9,
    },
    "layers": [
        {
            "layer": "conv1",
            "receptive_field": 3,
            "effective_field": 2.94,
            "dead": 1,
            "active": [0.0, 0.2, 0.9],
            "maximum": [0.0, 4.25, 3.0],
        }
    ],
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree with metrics, whose README was never generated."""
    shutil.copytree(".dvc/plots", tmp_path / ".dvc/plots")
    shutil.copy("params.yaml", tmp_path)
    (tmp_path / "README.md").write_text(
        "above\n<!-- results -->\nold\n<!-- /results -->\nbetween\n"
        "<!-- parameters --><!-- /parameters -->\nbelow\n"
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/findings.md").write_text(
        "\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in ("results", "evidence", "filters"))
    )
    (tmp_path / "docs/performance.md").write_text("fast")
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    (metrics / "filters.json").write_text(json.dumps(FILTERS))
    for number, model in enumerate(report.MODELS):
        (metrics / f"{model}.json").write_text(json.dumps(result(0.5 + number / 10)))
    (metrics / "download.json").write_text(json.dumps({"archive_md5": "0" * 32}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["report", *arguments])
    report.main()


def change(model: str, **values: Any) -> None:
    path = Path(f"metrics/{model}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_table_shows_the_metrics() -> None:
    table = report.results_table({"baseline": result(0.5), "cnn": result(0.78125)})
    rows = cells(table)
    assert rows[0] == ["model", "test accuracy", "test loss", "train accuracy", "gap", "parameters"]
    assert rows[2] == ["baseline", "0.5000", "1.2500", "0.7500", "+0.2500", "81,578"]
    assert rows[3] == ["cnn", "0.7812", "1.2500", "0.7500", "-0.0312", "81,578"]


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_findings_show_what_the_filters_do() -> None:
    assert cells(report.filter_table(FILTERS))[2:] == [
        ["conv1", "3", "3 x 3", "2.9", "0% to 90%", "20%", "4.2", "1"]
    ]
    assert [row[1:] for row in cells(report.evidence_table(FILTERS))[2:]] == [
        ["3.46", ""],
        ["1.20", "87.7%"],
        ["0.70", "90.0%"],
    ]


STUDY = {
    "study": "ablation",
    "metric": "test_accuracy",
    "settings": {
        "all": {
            "changes": {},
            "seeds": {
                "0": {"experiment": "a", "train_cnn": {"test_accuracy": 0.8, "train_accuracy": 0.9}},
                "1": {"experiment": "b", "train_cnn": {"test_accuracy": 0.82, "train_accuracy": 0.94}},
            },
        },
        "no_dropout": {
            "changes": {"reg.dropout": 0},
            "seeds": {"0": {"experiment": "c", "train_cnn": {"test_accuracy": 0.75, "train_accuracy": 1.0}}},
        },
    },
}


def test_a_study_is_shown_as_means_over_its_seeds() -> None:
    assert cells(report.study_table(STUDY))[2:] == [
        # the deviation of 0.80 and 0.82 with n - 1 is 0.01 sqrt(2)
        ["cnn", "all", "0.8100", "0.0141", "", "0.9200", "+0.1100", "2"],
        ["cnn", "no dropout", "0.7500", "", "-0.0600", "1.0000", "+0.2500", "1"],
    ]


def test_a_search_is_shown_by_what_it_changes_the_best_first() -> None:
    def setting(accuracy: float, peak: float | None) -> dict[str, Any]:
        found = {"train_cnn": {"validation_accuracy": accuracy, "train_accuracy": 0.9}}
        return {"changes": {"reg.one_cycle_peak": peak}, "seeds": {"0": {"experiment": "a", **found}}}

    settings = {"0000": setting(0.7, 0.0123456), "0001": setting(0.8, None)}
    study = {"study": "peak", "metric": "validation_accuracy", "settings": settings}
    table = cells(report.study_table(study))
    assert table[0][2] == "validation accuracy"
    assert table[2:] == [
        ["cnn", "reg.one_cycle_peak null", "0.8000", "", "", "0.9000", "+0.1000", "1"],
        ["cnn", "reg.one_cycle_peak 0.0123", "0.7000", "", "-0.1000", "0.9000", "+0.2000", "1"],
    ]


def test_another_study_makes_the_findings_stale(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report.STUDIES.mkdir(parents=True)
    (report.STUDIES / "ablation.json").write_text(json.dumps(STUDY))
    run(monkeypatch)  # no page has a place for it
    with open("docs/findings.md", "a") as page:
        page.write("<!-- study ablation -->\n")
    with pytest.raises(UserError, match=r"findings\.md has no <!-- study ablation --> followed by"):
        run(monkeypatch)
    with open("docs/findings.md", "a") as page:
        page.write("<!-- /study ablation -->\n")
    run(monkeypatch)
    assert "| no dropout |" in " ".join(Path("docs/findings.md").read_text().split())
    settings = {"all": STUDY["settings"]["all"]}  # type: ignore[index]
    (report.STUDIES / "ablation.json").write_text(json.dumps(STUDY | {"settings": settings}))
    with pytest.raises(SystemExit, match=r"stale: docs/findings\.md: "):
        run(monkeypatch, "--check")


def test_another_filter_study_makes_the_findings_stale(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    changed = FILTERS | {"evidence": FILTERS["evidence"] | {"drop_top_fifth": 1.0}}  # type: ignore[operator]
    Path("metrics/filters.json").write_text(json.dumps(changed))
    with pytest.raises(SystemExit, match=r"stale: docs/findings\.md: "):
        run(monkeypatch, "--check")


def test_generating_fills_the_readme_and_nothing_else(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    text = Path("README.md").read_text()
    assert text.startswith("above\n<!-- results -->\n")
    assert text.endswith("<!-- /parameters -->\nbelow\n")
    assert "<!-- /results -->\nbetween\n<!-- parameters -->" in text
    assert "old" not in text
    assert f"Made from an archive whose md5 is `{'0' * 32}`" in text
    run(monkeypatch, "--check")
    run(monkeypatch)
    assert Path("README.md").read_text() == text


@pytest.mark.parametrize(
    ("values", "stale"),
    [
        ({"test_loss": 1.0}, "stale: README.md and docs/findings.md: "),
        ({"history": [{"epoch": 1, "test_accuracy": 0.1}]}, "stale: docs/accuracy.png: "),
        (result(0.9), "stale: README.md and docs/findings.md and docs/accuracy.png: "),
    ],
)
def test_check_says_what_is_stale_and_writes_nothing(
    values: dict[str, Any], stale: str, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch)
    before = [Path(name).read_bytes() for name in ("README.md", "docs/accuracy.png")]
    change("cnn", **values)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--check")
    assert str(stopped.value).startswith(stale)
    assert [Path(name).read_bytes() for name in ("README.md", "docs/accuracy.png")] == before


def test_a_changed_default_makes_the_readme_stale(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("crop_pad: 2", "crop_pad: 3"))
    with pytest.raises(SystemExit, match=r"README\.md"):
        run(monkeypatch, "--check")


def test_a_missing_picture_is_stale(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    Path("docs/accuracy.png").unlink()
    with pytest.raises(SystemExit, match=r"accuracy\.png"):
        run(monkeypatch, "--check")


def test_the_picture_shows_a_curve_for_each_model(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    colours = json.loads(report.TEMPLATE.read_text())["encoding"]["color"]["scale"]["range"]
    with Image.open("docs/accuracy.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    plot = pixels[50:, 150 : pixels.shape[1] * 4 // 5]  # without title, axis labels and legend
    highest = [np.nonzero((plot == list(bytes.fromhex(colour[1:]))).all(-1))[0].min() for colour in colours]
    # the fixture's curves end at 0.5, 0.6, 0.7 and 0.8
    assert len(highest) == 4
    assert highest == sorted(highest, reverse=True)


def test_the_parameter_table_has_every_key_with_its_value() -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    table = report.parameter_table(load())
    rows = cells(table)[2:]
    expected = [
        (f"`{section}.{key}`", value) for section, values in content.items() for key, value in values.items()
    ]
    assert sorted(row[0] for row in rows) == sorted(key for key, _ in expected)
    shown = {row[0]: row[1].strip("`") for row in rows}
    for key, value in expected:
        assert (shown[key] if isinstance(value, str) else json.loads(shown[key])) == value


def test_every_meaning_belongs_to_a_key() -> None:
    keys = {
        f"{section}.{key}"
        for section, field in Params.model_fields.items()
        for key in field.annotation.model_fields  # type: ignore[union-attr]
    }
    assert set(report.MEANING) == keys


def test_a_model_without_metrics_is_named(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("metrics/augmented.json").unlink()
    with pytest.raises(UserError, match=r"metrics/augmented\.json is missing"):
        run(monkeypatch, "--check")


def test_lost_markers_are_named(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("README.md").write_text("<!-- results -->\n")
    with pytest.raises(UserError, match="<!-- /results -->"):
        run(monkeypatch)


@pytest.mark.parametrize(
    ("archive_md5", "said"), [(None, "synthetic images"), ("0" * 32, "not the official one's")]
)
def test_results_from_other_images_are_marked(archive_md5: str | None, said: str, study: Path) -> None:
    Path("metrics/download.json").write_text(json.dumps({"archive_md5": archive_md5}))
    assert said in report.archive_note()


def test_results_from_the_official_archive_need_no_note(study: Path) -> None:
    Path("metrics/download.json").write_text(json.dumps({"archive_md5": load().data.md5}))
    assert report.archive_note() == ""
