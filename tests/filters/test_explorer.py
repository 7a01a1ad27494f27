"""The page to explore, in a real browser."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from torch import Tensor

from stages.common.dataset import Data, Split
from stages.filters import explorer
from stages.filters.activations import activations
from stages.filters.analysis import analyze
from stages.networks.images import Images
from stages.networks.models import CNN

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,1000",
)


def make(count: int = 30) -> tuple[CNN, Data]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(count) % 10)
    classes = ("<b>plane</b>", *"bcdefghij")  # a name that would break a page that pastes text
    torch.manual_seed(0)
    model = CNN([[4], [3]], padding="same").eval().requires_grad_(False)
    return model, Data(split, None, split, torch.full((3,), 0.5), torch.full((3,), 0.25), classes)


def write(path: Path, model: CNN, data: Data) -> tuple[list[int], list[Tensor]]:
    analysis = analyze(model, data, 17, seed=0)
    explorer.write(path, "regularized", model, data, analysis)
    indices = explorer.choose(model, data, 17, analysis.sample)
    return indices, [layer.patches for layer in analysis.layers]


def content(path: Path) -> dict[str, Any]:
    """The data in a page."""
    _, _, rest = path.read_text().partition('<script type="application/json" id="data">')
    result: dict[str, Any] = json.loads(rest.partition("</script>")[0])
    return result


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (*OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


def settled(browser: webdriver.Chrome) -> None:
    body = browser.find_element(By.TAG_NAME, "body")
    WebDriverWait(browser, 60).until(lambda _: body.get_attribute("aria-busy") == "false")


def shown(browser: webdriver.Chrome, selector: str) -> np.ndarray:
    """The pixels (H, W, 3) of the first canvas that ``selector`` finds."""
    url = browser.execute_script("return document.querySelector(arguments[0]).toDataURL()", selector)
    png = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def log(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """What was logged since the last call."""
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


def close_classes(model: CNN) -> CNN:
    """``model`` with probabilities that are equal to four decimals, from class 9 down."""
    with torch.no_grad():
        model.get_parameter("dense.weight").zero_()
        model.get_parameter("dense.bias").copy_(torch.arange(10) * 1e-5)
    return model


@pytest.mark.slow
def test_clicks_change_the_pictures_without_error_or_network(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    model, data = make()
    indices, patches = write(tmp_path / "page.html", model, data)
    browser.get("about:blank")
    log(browser, "performance")  # forget what the browser's own first page asked for
    browser.get((tmp_path / "page.html").as_uri())
    settled(browser)

    def check(place: int, layer: int, channel: int, own: bool) -> list[np.ndarray]:
        """The four pictures are those of the data; gives them."""
        index = indices[place]
        pictures = [shown(browser, name) for name in ("#input", "#activation", "#kernel", "#tops canvas")]
        np.testing.assert_array_equal(pictures[0], data.test.images[index])
        layers, _ = activations(model, Images(data.test, data)[[index]][0])
        largest = max(float(one.max()) for one in (layers[layer : layer + 1] if own else layers))
        truth = colormaps["viridis"](layers[layer][0, channel].numpy() / largest)[..., :3] * 255
        assert np.abs(pictures[1] - truth).max() < 6  # 8 bits, twice rounded
        small = shown(browser, f"#layer-{layer} button:nth-child({channel + 1}) canvas")
        np.testing.assert_array_equal(small, pictures[1])
        np.testing.assert_array_equal(pictures[3], patches[layer][channel, 0])
        return pictures

    before = check(0, 0, 0, own=False)
    weights = model.get_parameter("conv1.weight")
    truth = 128 + 127 * weights[0].permute(1, 2, 0).numpy() / float(weights.abs().max())
    assert np.abs(before[2] - truth).max() < 1
    browser.find_elements(By.CSS_SELECTOR, "#pick button")[5].click()
    settled(browser)
    image_changed = check(5, 0, 0, own=False)
    assert not np.array_equal(before[0], image_changed[0])
    assert not np.array_equal(before[1], image_changed[1])
    np.testing.assert_array_equal(before[3], image_changed[3])
    browser.find_element(By.CSS_SELECTOR, "#layer-1 button:nth-child(3)").click()
    browser.find_element(By.ID, "own").click()
    settled(browser)
    channel_changed = check(5, 1, 2, own=True)
    for old, new in zip(image_changed[1:], channel_changed[1:], strict=True):
        assert not np.array_equal(old, new)
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "conv2, channel 2" in text
    assert "<b>plane</b>" in text

    assert log(browser, "browser") == []
    requests = [
        message["params"]["request"]["url"]
        for message in (json.loads(entry["message"])["message"] for entry in log(browser, "performance"))
        if message["method"] == "Network.requestWillBeSent"
    ]
    outside = [url for url in requests if not url.startswith(("data:", (tmp_path / "page.html").as_uri()))]
    assert requests
    assert outside == []


def test_the_page_is_the_same_each_time_and_names_nothing_of_the_machine(tmp_path: Path) -> None:
    model, data = make()
    for name in ("one", "two"):
        write(tmp_path / f"{name}.html", model, data)
    page = (tmp_path / "one.html").read_bytes()
    assert page == (tmp_path / "two.html").read_bytes()
    assert str(tmp_path).encode() not in page
    assert b"http" not in page.replace(b"http-equiv", b"")


def test_classes_of_equal_rounded_probability_stand_as_in_the_pictures(tmp_path: Path) -> None:
    model, data = make()
    close_classes(model)
    write(tmp_path / "page.html", model, data)
    analysis = analyze(model, data, 17, seed=0)
    assert analysis.best == [(data.classes[place], 0.1) for place in (9, 8, 7, 6, 5)]
    assert analysis.predicted == data.classes[9]
    assert all(image["best"] == [9, 8, 7, 6, 5] for image in content(tmp_path / "page.html")["images"])


@pytest.mark.slow
def test_the_page_keeps_the_order_of_the_classes(browser: webdriver.Chrome, tmp_path: Path) -> None:
    model, data = make()
    write(tmp_path / "page.html", close_classes(model), data)
    browser.get((tmp_path / "page.html").as_uri())
    settled(browser)
    names = browser.find_elements(By.CSS_SELECTOR, "#bars span:nth-child(3n + 1)")
    assert [name.text for name in names] == list("jihgf")
    title = browser.find_element(By.ID, "chosen-title").text
    assert title == "Test image 17: h, predicted j"


def test_images_are_balanced_and_fewer_for_a_large_network(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = make(60)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
    chosen = explorer.choose(model, data, 17, order)
    assert chosen[0] == 17
    assert len(set(chosen)) == len(chosen)
    assert (np.bincount(data.test.labels[chosen[1:]], minlength=10) >= 3).all()
    monkeypatch.setattr(explorer, "BUDGET", 1)
    assert len(explorer.choose(model, data, 17, order)) in (10, 11)
