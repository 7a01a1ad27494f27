"""The charts' templates as DVC fills them and Vega draws them, and the page that carries Vega."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from stages.common.errors import UserError
from tools.charts import DVC, TEMPLATES, VEGA_LITE, draw, main, specification

CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")  # not sorted
MODELS = ("baseline", "cnn", "augmented", "regularized", "wider")  # one more than the study has
COLOURS = ("#7f7f7f", "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728")
REVISIONS = tuple(f"run-{number}" for number in (7, 3, 11, 0, 1, 2, 4, 5, 6, 8, 9, 10))  # not sorted
WITHOUT_CNN = REVISIONS[0]


def history(epochs: int = 25) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "train_loss": 2 / epoch, "test_loss": 2.123456 / epoch, "test_accuracy": epoch / 30}
        for epoch in range(1, epochs + 1)
    ]


def write_results(root: Path, model: str) -> None:
    """As a training on the real data does, of a model that calls everything a cat or a dog."""
    content = json.dumps({"test_accuracy": 0.5, "history": history()})
    (root / f"metrics/{model}.json").write_text(content)
    counts = {"cat": 990, "dog": 10}
    rows = [f"{actual},{predicted},{counts.get(predicted, 0)}" for actual in CLASSES for predicted in CLASSES]
    (root / f"plots/{model}/confusion.csv").write_text("\n".join(["actual,predicted,images", *rows, ""]))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the charts of ``MODELS`` and a tag for each of ``REVISIONS``."""
    root = tmp_path_factory.mktemp("project")

    def run(*command: str) -> None:
        subprocess.run(command, cwd=root, check=True, capture_output=True)

    run("git", "init")
    run(*DVC, "init")
    shutil.copytree(TEMPLATES, root / TEMPLATES)
    files = {model: f"metrics/{model}.json" for model in MODELS}
    accuracy = {"template": "accuracy", "x": "epoch", "y": dict.fromkeys(files.values(), "test_accuracy")}
    losses = {
        "template": "losses",
        "x": "epoch",
        "y": {file: ["train_loss", "test_loss"] for file in files.values()},
    }
    confusion = {"template": "confusion_matrix", "x": "predicted", "y": "actual"}
    matrices: list[dict[str, Any]] = [{f"plots/{model}/confusion.csv": confusion} for model in MODELS]
    plots = [{"accuracy": accuracy}, {"losses": losses}, *matrices]
    (root / "dvc.yaml").write_text(json.dumps({"plots": plots}))  # JSON is YAML
    (root / "metrics").mkdir()
    for model in MODELS:
        (root / f"plots/{model}").mkdir(parents=True)
    for revision in REVISIONS:
        for model in MODELS:
            write_results(root, model)
        if revision == WITHOUT_CNN:
            (root / "metrics/cnn.json").unlink()
        run("git", "add", "--all")
        name = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        run("git", *name, "commit", "--allow-empty", "--message", revision)
        run("git", "tag", revision)
    return root


@pytest.fixture(scope="module")
def charts(project: Path) -> dict[str, dict[str, Any]]:
    """What ``dvc plots diff`` makes of all revisions, by the charts' names."""
    command = [*DVC, "plots", "diff", *REVISIONS, "--json"]
    answer = json.loads(subprocess.run(command, cwd=project, check=True, capture_output=True).stdout)
    assert "errors" not in answer or {error["source"] for error in answer["errors"]} == {"metrics/cnn.json"}
    return {name: chart["content"] for name, (chart,) in answer["data"].items()}


def of(chart: dict[str, Any], *revisions: str) -> dict[str, Any]:
    """``chart`` of some revisions in their order, which differs in nothing but the data."""
    rows = [row for revision in revisions for row in chart["data"]["values"] if row["rev"] == revision]
    return chart | {"data": {"values": rows}}


def drawn(chart: dict[str, Any], **wanted: str) -> list[list[dict[str, Any]]]:
    """The marks that Vega draws which have the properties ``wanted``, each as the list of its items."""

    def walk(node: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
        if wanted.items() <= node.items():
            yield node["items"]
        for child in node.get("items", []):
            yield from walk(child)

    scene = vl_convert.vegalite_to_scenegraph(chart, vl_version=VEGA_LITE)["scenegraph"]
    return list(walk(scene))


def lines(chart: dict[str, Any]) -> list[dict[str, Any]]:
    """The first point of each line, which has the line's colour and dash."""
    return [items[0] for items in drawn(chart, marktype="line")]


def legend(chart: dict[str, Any], field: str, shows: str) -> dict[str, Any]:
    """The labels in the legend of ``field``, in their order, and what it shows of each."""
    labels = [item["text"] for (item,) in drawn(chart, name=f"{field}_legend_labels")]
    symbols = [item[shows] for (item,) in drawn(chart, name=f"{field}_legend_symbols")]
    return dict(zip(labels, symbols, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "views"), [("accuracy", 1), ("losses", 2)])
def test_each_model_has_its_line_and_colour_whichever_revisions_are_compared(
    charts: dict[str, dict[str, Any]], name: str, views: int
) -> None:
    colours = dict(zip(MODELS, COLOURS, strict=True))
    for revisions in (REVISIONS, REVISIONS[1:2], REVISIONS[:2], REVISIONS[1::-1]):
        chart = of(charts[name], *revisions)
        shown = legend(chart, "model", "fill")
        assert shown == colours
        assert tuple(shown) == MODELS  # dvc.yaml's order, although the first revision lacks a model
        expected = dict.fromkeys(COLOURS, len(revisions) * views)
        expected[colours["cnn"]] -= views * (WITHOUT_CNN in revisions)
        assert Counter(line["stroke"] for line in lines(chart)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accuracy", "losses"])
def test_twelve_revisions_have_twelve_dashes(charts: dict[str, dict[str, Any]], name: str) -> None:
    shown = {label: tuple(dash) for label, dash in legend(charts[name], "rev", "strokeDash").items()}
    assert tuple(shown) == REVISIONS  # in the order of the command
    assert len(set(shown.values())) == len({tuple(line["strokeDash"]) for line in lines(charts[name])}) == 12


@pytest.mark.slow
def test_a_confusion_matrix_is_square_and_in_the_order_of_the_classes(
    charts: dict[str, dict[str, Any]],
) -> None:
    chart = of(charts["plots/cnn/confusion.csv"], *REVISIONS[:5])
    titles = [item["text"] for (item,) in drawn(chart, role="title-text")]
    assert titles[:5] == list(REVISIONS[:5])
    matrices = drawn(chart, marktype="rect", role="mark")
    assert len(matrices) == 5
    for cells in matrices:
        assert len(cells) == 100
        assert {(cell["width"], cell["height"]) for cell in cells} == {(30, 30)}
        for number, cell in enumerate(cells):
            row, column = divmod(number, 10)
            assert (cell["x"], cell["y"]) == (30 * column, 30 * row)
            assert f"predicted: {CLASSES[column]}; actual: {CLASSES[row]}; " in cell["description"]
        assert len({cell["fill"] for cell in cells}) == 3  # 99%, 1% and none
    for texts in drawn(chart, marktype="text", role="mark"):
        assert Counter(text["text"] for text in texts) == {990: 10, 10: 10}


@pytest.mark.slow
def test_charts_have_the_size_that_dvc_gives(charts: dict[str, dict[str, Any]]) -> None:
    assert (charts["accuracy"]["width"], charts["accuracy"]["height"]) == (300, 300)
    for name in ("losses", "plots/cnn/confusion.csv"):
        views = [item for items in drawn(of(charts[name], *REVISIONS[:2]), name="cell") for item in items]
        assert [(view["width"], view["height"]) for view in views] == [(300, 300)] * 2


def test_a_picture_of_one_revision_has_no_legend_of_revisions() -> None:
    rows = [
        {"rev": rev, "filename": f"metrics/{model}.json", "epoch": epoch, "test_accuracy": epoch / 4}
        for rev in ("main", "experiment")
        for model in MODELS
        for epoch in (1, 2, 3)
    ]

    def picture(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return specification("accuracy", rows, "epoch", "test_accuracy", "Accuracy", (400, 200))

    two, one = picture([row.copy() for row in rows]), picture(rows[: len(rows) // 2])
    titles = [["model", "revision"], ["model"]]
    assert [[item["text"] for (item,) in drawn(chart, role="legend-title")] for chart in (two, one)] == titles
    assert [len(lines(chart)) for chart in (two, one)] == [2 * len(MODELS), len(MODELS)]
    assert tuple(legend(one, "model", "fill")) == MODELS
    (frame,) = drawn(one, role="frame")
    assert (frame[0]["width"], frame[0]["height"]) == (400, 200)
    assert [item["text"] for (item,) in drawn(one, role="title-text")] == ["Accuracy"]


@pytest.fixture(scope="module")
def page(project: Path) -> Path:
    """The page of five revisions."""
    return draw(project, list(REVISIONS[:5]))


def shown(browser: webdriver.Chrome, page: Path) -> set[str]:
    """Open ``page``; the names of the charts in it, once all are drawn."""
    browser.get(page.as_uri())
    names = {
        chart.get_attribute("id") or "" for chart in browser.find_elements(By.CSS_SELECTOR, "body > div")
    }
    WebDriverWait(browser, 60).until(
        lambda browser: len(browser.find_elements(By.CSS_SELECTOR, "div > svg.marks")) == len(names)
    )
    return names


@pytest.mark.slow
def test_the_page_is_small_and_draws_without_a_network(browser: webdriver.Chrome, page: Path) -> None:
    assert page.stat().st_size < 4e6
    address = r"<(?:script|link|img)[^>]*(?:src|href)=[\"']?(?:https?:)?//"
    assert not re.findall(address, page.read_text(encoding="utf-8"))
    matrices = {f"plots_{model}_confusion_csv" for model in MODELS}
    assert shown(browser, page) == {"accuracy", "losses", *matrices}
    for model in MODELS:
        cells = browser.find_elements(
            By.CSS_SELECTOR, f"#plots_{model}_confusion_csv .mark-rect.role-mark path"
        )
        assert len(cells) == 5 * 100


@pytest.mark.slow
@pytest.mark.parametrize(("name", "views"), [("accuracy", 1), ("losses", 2)])
def test_a_click_on_the_legend_highlights(
    browser: webdriver.Chrome, page: Path, name: str, views: int
) -> None:
    shown(browser, page)
    all_lines = len(browser.find_elements(By.CSS_SELECTOR, f"#{name} .mark-line path"))

    def entry(label: str) -> WebElement:
        labels = browser.find_elements(By.CSS_SELECTOR, f"#{name} .role-legend-label text")
        (found,) = (one for one in labels if one.text == label)
        return found

    def expect(highlighted: int) -> None:
        """Wait until that many lines stand out; all others are faint."""
        selector = f'#{name} .mark-line path[opacity="1"]'
        WebDriverWait(browser, 20).until(
            lambda browser: len(browser.find_elements(By.CSS_SELECTOR, selector)) == highlighted
        )

    def click(label: str, *keys: str) -> None:
        actions = ActionChains(browser)
        for key in keys:
            actions.key_down(key)
        actions.click(entry(label))
        for key in keys:
            actions.key_up(key)
        actions.perform()

    expect(all_lines)
    click(REVISIONS[1])
    expect(views * len(MODELS))
    click(REVISIONS[2], Keys.SHIFT)
    expect(views * len(MODELS) * 2)
    click("wider")  # the two revisions stay: by itself, Vega-Lite would forget all but one of them
    expect(views * 2)
    click("baseline", Keys.SHIFT)
    expect(views * 4)
    click(REVISIONS[2], Keys.SHIFT)
    expect(views * 2)
    svg = browser.find_element(By.CSS_SELECTOR, f"#{name} svg.marks")
    left, below = 5 - svg.size["width"] // 2, svg.size["height"] // 2 - 5  # from the middle to the corner
    ActionChains(browser).move_to_element_with_offset(svg, left, below).click().perform()
    expect(all_lines)


@pytest.mark.slow
def test_a_chart_fits_into_what_the_editor_gives_it(
    browser: webdriver.Chrome, page: Path, charts: dict[str, dict[str, Any]]
) -> None:
    shown(browser, page)  # for its Vega
    browser.execute_script(
        """
        const box = document.createElement("div");
        box.id = "box";
        box.style = "width: 480px; height: 320px";
        document.body.prepend(box);
        vegaEmbed("#box", {...arguments[0], width: "container", height: "container"});
        """,
        charts["accuracy"],
    )
    WebDriverWait(browser, 20).until(lambda browser: browser.find_elements(By.CSS_SELECTOR, "#box svg.marks"))
    size = browser.find_element(By.CSS_SELECTOR, "#box svg.marks").size
    assert size["width"] <= 480
    assert size["height"] <= 320


def test_an_unknown_argument_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["charts", "--targets"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "unrecognized arguments: --targets" in capsys.readouterr().err


@pytest.mark.slow
def test_an_unknown_revision_is_refused(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="dvc plots diff nothing ended with status 1"):
        draw(project, ["nothing"])
    assert "unknown Git revision 'nothing'" in capfd.readouterr().err


@pytest.mark.slow
def test_without_results_there_is_no_page(tmp_path: Path) -> None:
    subprocess.run([*DVC, "init", "--no-scm"], cwd=tmp_path, check=True, capture_output=True)
    with pytest.raises(UserError, match="no results to draw: run 'dvc repro' first"):
        draw(tmp_path, [])
