"""The page to explore, in a real browser: its network is PyTorch's, and its buttons do what they say."""

import base64
import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from torch import Tensor, nn

from stages.common.dataset import Data, Split
from stages.filters import explorer
from stages.filters.activations import activations
from stages.filters.analysis import analyze
from stages.filters.evidence import occlusion
from stages.networks.images import Images
from stages.networks.models import CNN

MINUS = "\N{MINUS SIGN}"
SHEET = [[32, 32], [64, 64]]
# the arguments of networks; of each group, how many test images and random pictures they are asked about
NETWORKS: dict[str, tuple[int, int, list[dict[str, Any]]]] = {
    "cnn and augmented": (200, 50, [{"blocks": SHEET}]),
    "regularized": (200, 50, [{"blocks": SHEET, "batch_norm": True, "dropout": 0.05}]),
    "others": (
        *(40, 10),
        [
            {"blocks": [[5], [7, 3], [4]], "batch_norm": True},
            {"blocks": [[4, 6], [8]], "kernel_size": 5},
            {"blocks": [[4, 6], [8]], "kernel_size": 5, "padding": "same"},
            {"blocks": [[4], [6]], "relu_logits": True},
        ],
    ),
}
LOGITS = """
const done = arguments[1];
const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
(async () => {
  const logits = [];
  for (const text of arguments[0]) logits.push(await explorer.logits(decode(text)));
  done(logits);
})();
"""
GRADIENT = """
const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
explorer.gradient(decode(arguments[0]), arguments[1]).then(arguments[2]);
"""


def make(count: int = 30, **network: Any) -> tuple[CNN, Data]:
    """A random network with random statistics of batch norm, and random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(count) % 10)
    classes = ("<b>plane</b>", *"bcdefghij")  # a name that would break a page that pastes text
    torch.manual_seed(0)
    model = CNN(**({"blocks": [[4], [3]], "padding": "same"} | network)).eval().requires_grad_(False)
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                values.uniform_(0.5, 1.5)
    mean, std = torch.tensor([0.5, 0.4, 0.6]), torch.tensor([0.25, 0.2, 0.3])
    return model, Data(split, None, split, mean, std, classes)


def write(path: Path, model: CNN, data: Data) -> list[int]:
    """Write the page; the test images that it has."""
    analysis = analyze(model, data, 17, seed=0)
    explorer.write(path, "regularized", model, data, analysis)
    return explorer.choose(data, 17, analysis.sample)


def settled(browser: webdriver.Chrome) -> None:
    body = browser.find_element(By.TAG_NAME, "body")
    WebDriverWait(browser, 60).until(lambda _: body.get_attribute("aria-busy") == "false")


@pytest.fixture
def opened(browser: webdriver.Chrome, tmp_path: Path) -> Callable[[CNN, Data], list[int]]:
    """Opens the page of a network and images; gives the test images in it."""

    def opens(model: CNN, data: Data) -> list[int]:
        indices = write(tmp_path / "page.html", model, data)
        browser.get((tmp_path / "page.html").as_uri())
        settled(browser)
        return indices

    return opens


def encoded(picture: np.ndarray | Tensor) -> str:
    return base64.b64encode(np.asarray(picture).tobytes()).decode()


def shown(browser: webdriver.Chrome, selector: str) -> np.ndarray:
    """The pixels (H, W, 3) of the first canvas that ``selector`` finds."""
    url = browser.execute_script("return document.querySelector(arguments[0]).toDataURL()", selector)
    png = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def click(browser: webdriver.Chrome, selector: str) -> None:
    browser.find_element(By.CSS_SELECTOR, selector).click()
    settled(browser)


def logits(browser: webdriver.Chrome) -> np.ndarray:
    """The logits of the picture as it is on the page, in the order of the classes."""
    return np.array(browser.execute_script("return Array.from(result.logits)"))


def log(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """What was logged since the last call."""
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


def normalized(data: Data, pixels: Tensor) -> Tensor:
    """``pixels`` (N, 32, 32, 3) uint8 as the network takes them."""
    return Images(Split(pixels, torch.zeros(len(pixels), dtype=torch.long)), data)[list(range(len(pixels)))][
        0
    ]


@pytest.mark.slow
@pytest.mark.parametrize("group", NETWORKS)
def test_the_pages_network_is_pytorchs(
    group: str, browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]]
) -> None:
    tests, random, networks = NETWORKS[group]
    browser.set_script_timeout(120)
    for network in networks:
        model, data = make(tests, **network)
        opened(model, data)
        assert browser.execute_script("return explorer.classes") == list(data.classes)
        more = torch.randint(0, 256, (random, 32, 32, 3), dtype=torch.uint8)
        pictures = torch.cat([data.test.images, more])
        found = np.array(browser.execute_async_script(LOGITS, [encoded(picture) for picture in pictures]))
        images = normalized(data, pictures)
        assert np.abs(found - model(images).numpy()).max() < 1e-3
        for number, class_ in ((0, 3), (-1, 7)):
            image = images[number : number + 1 or None].clone().requires_grad_()
            (expected,) = torch.autograd.grad(model(image)[0, class_], image)
            gradient = browser.execute_async_script(GRADIENT, encoded(pictures[number]), class_)
            assert np.abs(np.array(gradient).reshape(3, 32, 32) - expected[0].numpy()).max() < 1e-4
            assert expected.abs().max() > 1e-3 or network.get("relu_logits")
    assert log(browser, "browser") == []


@pytest.mark.slow
def test_ties_are_pytorchs_too(browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]]) -> None:
    """In a picture of one colour all pixels of a window are the largest: the first counts."""
    model, data = make(blocks=[[4], [3]], padding="valid")
    for name in ("conv1", "conv2"):  # each unit reads one pixel, so that nothing is rounded
        weight = model.get_parameter(f"{name}.weight")
        centre = weight[:, :1, 1:2, 1:2].abs() + 0.1
        weight.zero_()[:, :1, 1:2, 1:2] = centre
    opened(model, data)
    picture = torch.full((1, 32, 32, 3), 200, dtype=torch.uint8)
    image = normalized(data, picture).requires_grad_()
    (expected,) = torch.autograd.grad(model(image)[0, 0], image)
    gradient = browser.execute_async_script(GRADIENT, encoded(picture), 0)
    assert np.abs(np.array(gradient).reshape(3, 32, 32) - expected[0].numpy()).max() < 1e-5


@pytest.mark.slow
def test_clicks_show_images_and_channels_without_error_or_network(
    browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]], tmp_path: Path
) -> None:
    model, data = make(batch_norm=True)
    browser.get("about:blank")
    log(browser, "performance")  # forget what the browser's own first page asked for
    indices = opened(model, data)

    def check(place: int, layer: int, channel: int, own: bool) -> None:
        """The pictures are those of the data, and the sum is the activation."""
        index = indices[place]
        layers, answer = activations(model, Images(data.test, data)[[index]][0])
        assert np.abs(logits(browser) - answer[0].numpy()).max() < 1e-4
        picture = shown(browser, "#picture")[4::8, 4::8]
        assert (picture != data.test.images[index].numpy()).any(-1).mean() < 0.25  # but for the frame
        side = layers[layer].shape[2]
        values = layers[layer][0, channel].numpy()
        largest = max(float(one.max()) for one in (layers[layer : layer + 1] if own else layers))
        truth = colormaps["viridis"](values / largest)[..., :3] * 255
        small = shown(browser, f"#layer-{layer} button:nth-child({channel + 1}) canvas")
        assert small.shape == (side, side, 3)
        assert np.abs(small - truth).max() < 6
        total = browser.find_element(By.ID, "sum")
        assert float(total.get_attribute("data-value") or "nan") == pytest.approx(values.max(), abs=1e-4)

    check(0, 0, 0, own=True)
    click(browser, "#pick button:nth-child(6)")
    check(5, 0, 0, own=True)
    click(browser, "#layer-1 button:nth-child(3)")
    click(browser, "#common")
    check(5, 1, 2, own=False)
    browser.find_element(By.CSS_SELECTOR, "summary").click()
    WebDriverWait(browser, 10).until(
        lambda b: len(b.find_elements(By.CSS_SELECTOR, "#table tr")) == 4 * 9 + 2
    )
    products = [
        float(cell.text.replace(MINUS, "-"))
        for cell in browser.find_elements(By.CSS_SELECTOR, "#table td:last-child")
    ]
    said = re.search(rf"36 products, ({MINUS}?[\d.]+),", browser.find_element(By.ID, "sum").text)
    assert said
    assert float(said[1].replace(MINUS, "-")) == pytest.approx(sum(products), abs=36 * 0.0005)
    body = browser.find_element(By.TAG_NAME, "body").text
    assert "conv2, channel 2" in body
    assert "<b>plane</b>" in body

    assert log(browser, "browser") == []
    requests = [
        message["params"]["request"]["url"]
        for message in (json.loads(entry["message"])["message"] for entry in log(browser, "performance"))
        if message["method"] == "Network.requestWillBeSent"
    ]
    outside = [url for url in requests if not url.startswith(("data:", (tmp_path / "page.html").as_uri()))]
    assert requests
    assert outside == []


@pytest.mark.slow
def test_the_picture_can_be_changed(
    browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]], tmp_path: Path
) -> None:
    model, data = make()
    original = data.test.images[opened(model, data)[0]]

    def expect(pixels: Tensor, hidden: Tensor | None = None) -> None:
        image = normalized(data, pixels[None])
        if hidden is not None:
            image[:, :, hidden] = 0
        assert np.abs(logits(browser) - model(image)[0].numpy()).max() < 1e-4

    click(browser, "#mirror")
    expect(original.flip(1))
    click(browser, "#reset")
    click(browser, "#right")
    expect(torch.cat([original[:, :1], original[:, :-1]], dim=1))  # the border is repeated
    click(browser, "#down")
    click(browser, "#reset")
    expect(original)

    canvas = browser.find_element(By.ID, "picture")
    ActionChains(browser).move_to_element_with_offset(canvas, -128 + 84, -128 + 44).click().perform()
    settled(browser)
    hidden = torch.zeros(32, 32, dtype=torch.bool)
    hidden[4:7, 9:12] = True  # the pixel at column 10 and row 5, and its neighbours
    expect(original, hidden)
    click(browser, "#show")
    canvas.send_keys(" ")
    settled(browser)
    expect(original)
    # a drag leaves no gaps, and hides while the button is down alone
    start = ActionChains(browser).move_to_element_with_offset(canvas, -128 + 20, -128 + 20)
    click(browser, "#hide")
    start.click_and_hold().move_by_offset(200, 0).release().move_by_offset(0, 100).perform()
    hidden[:] = False
    hidden[1:4, 1:29] = True
    WebDriverWait(browser, 20).until(lambda b: b.execute_script("return !waiting"))
    settled(browser)
    expect(original, hidden)
    click(browser, "#reset")
    browser.execute_script("document.getElementById('colour').value = '#0a141e'")
    click(browser, "#paint")
    browser.execute_script("state.cursor = { x: 10, y: 5 }")
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, " ")
    settled(browser)
    painted = original.clone()
    painted[5:8, 10:13] = torch.tensor([10, 20, 30], dtype=torch.uint8)
    expect(painted)

    # a picture of one's own: its middle, or another square of it
    wide = torch.cat([data.test.images[1], data.test.images[2]], dim=1)
    Image.fromarray(wide.numpy()).save(tmp_path / "own.png")
    for _ in range(2):  # after another image, the same file again
        browser.find_element(By.ID, "file").send_keys(str(tmp_path / "own.png"))
        WebDriverWait(browser, 20).until(lambda b: "own.png" in b.find_element(By.ID, "chosen-title").text)
        settled(browser)
        expect(wide[:, 16:48])
        click(browser, "#pick button:nth-child(1)")
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "own.png"))
    WebDriverWait(browser, 20).until(lambda b: "own.png" in b.find_element(By.ID, "chosen-title").text)
    settled(browser)
    browser.find_element(By.ID, "square").send_keys(Keys.END)
    settled(browser)
    expect(data.test.images[2])
    (tmp_path / "text.png").write_text("no picture")
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "text.png"))
    WebDriverWait(browser, 20).until(
        lambda b: "text.png is no picture" in b.find_element(By.ID, "chosen-title").text
    )
    assert log(browser, "browser") == []


@pytest.mark.slow
def test_channels_can_be_switched_off(
    browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]]
) -> None:
    model, data = make()
    image = Images(data.test, data)[[opened(model, data)[0]]][0]

    def expect(kept: dict[str, list[int]]) -> None:
        """The logits where of some ReLUs' channels only those in ``kept`` are let through."""
        current = image
        for name, module in model.named_children():
            current = module(current)
            if name in kept:
                off = [channel for channel in range(current.shape[1]) if channel not in kept[name]]
                current[:, off] = 0
        assert np.abs(logits(browser) - current[0].numpy()).max() < 1e-4

    click(browser, "#off")
    expect({"relu1": [1, 2, 3]})
    assert browser.find_element(By.ID, "sum").text.endswith("switched off: 0")
    click(browser, "#layer-1 button:nth-child(2)")
    click(browser, "#only")
    expect({"relu1": [1, 2, 3], "relu2": [1]})
    click(browser, "#off")
    expect({"relu1": [1, 2, 3], "relu2": []})
    assert (
        browser.find_element(By.ID, "switched-count").text == "4 of the network's channels are switched off."
    )
    click(browser, "#all")
    expect({})
    assert not browser.find_element(By.ID, "switched").is_displayed()
    click(browser, "#off")
    click(browser, "#on")
    expect({})


@pytest.mark.slow
def test_the_maps_are_the_gradient_and_the_occlusion(
    browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]]
) -> None:
    model, data = make()
    image = Images(data.test, data)[[opened(model, data)[0]]][0]
    number = int(model(image).argmax())
    evidence = occlusion(model, image)[0].numpy()
    expected = colormaps["RdBu_r"]((evidence / np.abs(evidence).max() + 1) / 2)[..., :3] * 255
    assert np.abs(shown(browser, "#occlusion") - expected).max() < 6
    for class_ in (number, (number + 1) % 10):
        browser.execute_script(
            "const which = document.getElementById('which'); which.value = arguments[0];"
            "which.dispatchEvent(new Event('change'))",
            str(class_),
        )
        settled(browser)
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf)[0, class_], leaf)
        strength = gradient[0].norm(dim=0).numpy()
        truth = colormaps["viridis"](strength / strength.max())[..., :3] * 255
        assert np.abs(shown(browser, "#gradient") - truth).max() < 6


@pytest.mark.slow
def test_a_unit_is_picked_by_keyboard_and_its_field_is_that_of_theory_b(
    browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]]
) -> None:
    model, data = make(blocks=[[4], [3]], padding="valid")
    image = Images(data.test, data)[[opened(model, data)[0]]][0]
    click(browser, "#layer-1 button:nth-child(1)")
    browser.execute_script("state.unit = { x: 2, y: 3 }; showChannel()")
    browser.find_element(By.ID, "activation").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    # the mouse picks one with its button, and does not lose it on its way elsewhere
    activation = browser.find_element(By.ID, "activation")
    middle = browser.execute_script("return state.unit")
    ActionChains(browser).move_to_element(activation).perform()
    assert browser.execute_script("return state.unit") == middle
    value = float(browser.find_element(By.ID, "sum").get_attribute("data-value") or "nan")
    assert value == pytest.approx(float(activations(model, image)[0][1][0, 0, 4, 3]), abs=1e-4)
    # conv, pool, conv: 3 + 1 + 2 * 2 pixels, two apart
    assert browser.execute_script("return field()") == {"size": 8, "first": {"x": 6, "y": 8}}
    ActionChains(browser).move_to_element(activation).click().perform()
    assert browser.execute_script("return state.unit") != middle


@pytest.mark.slow
def test_the_keyboard_comes_everywhere_in_few_steps(
    browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]]
) -> None:
    opened(*make())
    stops = browser.execute_script(
        "return [...document.querySelectorAll('button, input, select, summary, canvas')]"
        ".filter((element) => element.tabIndex >= 0 && element.checkVisibility()).length"
    )
    assert stops < 30  # of 30 images and 7 channels, one for each grid

    def focused() -> dict[str, float]:
        box: dict[str, float] = browser.execute_script(
            "return document.activeElement.getBoundingClientRect().toJSON()"
        )
        return box

    browser.execute_script("document.querySelector('#pick button').focus()")
    before = focused()
    browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert focused()["x"] == before["x"]
    assert focused()["y"] > before["y"]
    browser.switch_to.active_element.send_keys(Keys.ARROW_UP)
    browser.switch_to.active_element.send_keys(Keys.ARROW_UP)  # there is none: it stays
    assert focused() == before
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    settled(browser)
    assert browser.execute_script("return state.image") == 1
    browser.execute_script("document.querySelector('#layer-1 button').focus()")
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    panel = browser.find_element(By.TAG_NAME, "aside")
    assert panel.get_attribute("class") == "picked"
    browser.find_element(By.ID, "off").send_keys(Keys.ESCAPE)
    assert panel.get_attribute("class") == ""
    assert browser.switch_to.active_element.get_attribute("aria-label") == "conv2, channel 1"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)  # from the channel itself, too
    assert panel.get_attribute("class") == ""
    browser.switch_to.active_element.send_keys(Keys.ALT, Keys.ARROW_LEFT)  # that is the browser's
    assert browser.switch_to.active_element.get_attribute("aria-label") == "conv2, channel 1"
    assert log(browser, "browser") == []


@pytest.mark.slow
def test_without_a_tool_a_finger_on_the_picture_scrolls(
    browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]]
) -> None:
    opened(*make())
    picture = browser.find_element(By.ID, "picture")
    touch = "return getComputedStyle(arguments[0]).touchAction"
    assert browser.execute_script(touch, picture) == "none"
    click(browser, "#hide")  # which was on
    assert browser.execute_script(touch, picture) == "auto"
    picture.click()
    settled(browser)
    assert not browser.execute_script("return state.hidden.some(Boolean)")
    click(browser, "#paint")
    assert browser.execute_script(touch, picture) == "none"
    # where there is a finger, none is on at first
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 1})
    browser.refresh()
    settled(browser)
    assert browser.execute_script(touch, browser.find_element(By.ID, "picture")) == "auto"
    assert browser.execute_script("return state.tool") is None


@pytest.mark.slow
def test_a_picture_can_be_pasted(browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]]) -> None:
    _, data = make()
    opened(*make())
    file = io.BytesIO()
    Image.fromarray(data.test.images[1].numpy()).save(file, "png")
    browser.execute_script(
        "const transfer = new DataTransfer();"
        "const content = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));"
        "transfer.items.add(new File([content], 'mine.png', { type: 'image/png' }));"
        "document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer }));",
        encoded(np.frombuffer(file.getvalue(), np.uint8)),
    )
    WebDriverWait(browser, 20).until(lambda b: "mine.png" in b.find_element(By.ID, "chosen-title").text)
    settled(browser)
    assert browser.execute_script("return Array.from(state.rgb)") == data.test.images[1].flatten().tolist()


def test_the_page_is_the_same_each_time_and_names_nothing_of_the_machine(tmp_path: Path) -> None:
    model, data = make()
    for name in ("one", "two"):
        write(tmp_path / f"{name}.html", model, data)
    page = (tmp_path / "one.html").read_bytes()
    assert page == (tmp_path / "two.html").read_bytes()
    assert str(tmp_path).encode() not in page
    assert b"http" not in page.replace(b"http-equiv", b"")


@pytest.mark.slow
def test_classes_stand_in_the_order_of_their_logits(
    browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]]
) -> None:
    """As in the pictures, also where the probabilities are the same on paper."""
    model, data = make()
    model.get_parameter("dense.weight").zero_()
    model.get_parameter("dense.bias").copy_(torch.arange(10) * 1e-5)
    opened(model, data)
    names = browser.find_elements(By.CSS_SELECTOR, "#bars span:nth-child(4n + 1)")
    assert [name.text for name in names] == [*"jihgfedcb", "<b>plane</b>"]
    assert browser.find_element(By.ID, "chosen-title").text == "Test image 17: h, predicted j"
    assert analyze(model, data, 17, seed=0).best == [(data.classes[place], 0.1) for place in (9, 8, 7, 6, 5)]


@pytest.mark.slow
def test_it_fits_the_screen_in_light_and_dark(
    browser: webdriver.Chrome, opened: Callable[[CNN, Data], list[int]]
) -> None:
    opened(*make())
    for scheme, width in itertools.product(("light", "dark"), (1300, 1000, 320)):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
        )
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        channel = browser.find_element(By.CSS_SELECTOR, "#layer-1 button:nth-child(2)")
        browser.execute_script("arguments[0].scrollIntoView()", channel)
        channel.click()
        title = browser.find_element(By.ID, "channel-title")
        assert title.text == "conv2, channel 1"
        top = "return arguments[0].getBoundingClientRect().top"
        assert -5 < browser.execute_script(top, title) < 800  # in sight, wherever the channel is picked
        close = browser.find_element(By.ID, "close")
        assert close.is_displayed() == (width <= 1100)
        if width <= 1100:
            close.click()
            assert not close.is_displayed()
        background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) > 384) == (scheme == "light")
    assert log(browser, "browser") == []


def test_images_are_balanced() -> None:
    _, data = make(60)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
    chosen = explorer.choose(data, 17, order)
    assert chosen[0] == 17
    assert len(set(chosen)) == len(chosen)
    assert (np.bincount(data.test.labels[chosen[1:]], minlength=10) >= 5).all()
    _, data = make(400)
    chosen = explorer.choose(data, 17, torch.arange(400))
    assert len(chosen) in (100, 101)
    assert (np.bincount(data.test.labels[chosen]) >= 10).all()


def test_a_layer_that_the_page_does_not_have_is_refused() -> None:
    model, _ = make()
    model.add_module("extra", nn.Sigmoid())
    with pytest.raises(TypeError, match=r"^extra: network\.js has no Sigmoid$"):
        explorer.layers(model)
