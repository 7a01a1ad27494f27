"""Parameter files: accepted and able to train, or refused in one line that names the key."""

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dvc.utils.hydra import apply_overrides  # what -S calls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.augmentation.transforms import augmentation
from stages.common.dataset import Data, Split
from stages.common.errors import UserError
from stages.networks.models import CNN, MLP
from stages.params import Params, check_all, load_all
from stages.training.optimization import Recipe
from stages.training.runtime import prepare
from stages.training.trainer import PLAIN, Trainer

TEXT = Path("params.yaml").read_text()
TREE: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)
KEYS = [(section, key) for section, content in TREE.items() for key in content]


def changed(section: str, key: Any, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(TREE)
    tree[section][key] = value
    return tree


def refusal(content: Any) -> str:
    with pytest.raises(UserError) as caught:
        check_all(content)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith("params.yaml: ")
    return message.removeprefix("params.yaml: ")


def refused_text(text: str | bytes, folder: Path) -> str:
    path = folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load_all(path)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_the_committed_file_is_the_sheet() -> None:
    params = load_all()
    assert (params.train.epochs, params.train.batch_size, params.train.learning_rate) == (25, 128, 0.0005)
    assert params.train.betas == [0.9, 0.95]
    assert params.cnn.blocks == [[32, 32], [64, 64]]
    assert (params.cnn.kernel_size, params.cnn.padding) == (3, "valid")
    assert (params.data.source, params.data.train_size, params.data.test_size) == ("cifar10", 50_000, 10_000)
    assert params.data.validation_size == 0
    assert params.data.url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert params.data.md5 == "c32a1d4ab5d03f1284b67883e8d87530"
    assert params.aug.crop_pad == 2
    assert params.baseline.hidden == [512, 512]
    assert params.viz.model == "regularized"


@pytest.mark.parametrize("spelling", ["5e-05", "5e-5", "0.00005", "5.0e-05"])
def test_small_learning_rates_as_dvc_writes_them(spelling: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("learning_rate: 0.0005", f"learning_rate: {spelling}"))
    assert load_all(path).train.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("aug", "crop_pad", "2", "aug.crop_pad is '2', but must be a whole number from 0 to 16"),
        ("aug", "crop_pad", 2.5, "aug.crop_pad is 2.5, but must be a whole number from 0 to 16"),
        ("aug", "crop_pad", 17.0, "aug.crop_pad is 17, but must be a whole number from 0 to 16"),
        ("aug", "crop_pad", None, "aug.crop_pad is null, but must be a whole number from 0 to 16"),
        ("aug", "crop_pad", -1, "aug.crop_pad is -1, but must be a whole number from 0 to 16"),
        ("aug", "crop_pad", 17, "aug.crop_pad is 17, but must be a whole number from 0 to 16"),
        ("aug", "flip", math.nan, "aug.flip is nan, but must be a number from 0 to 1"),
        ("aug", "flip", math.inf, "aug.flip is inf, but must be a number from 0 to 1"),
        ("train", "device", True, "train.device is true, but must be auto, cpu or cuda"),
        ("aug", "flip", "much", "aug.flip is 'much', but must be a number from 0 to 1"),
        ("aug", "flip", 10**400, "aug.flip is a number of 401 digits, but must be a number from 0 to 1"),
        ("aug", "flip", 10**400 - 1, "aug.flip is a number of 400 digits, but"),
        ("aug", "flip", 4 * 10**60, "aug.flip is a number of 61 digits, but"),
        ("data", "seed", -(10**5000), "data.seed is a number of 5001 digits, but"),
        ("data", "seed", 1 - 10**5000, "data.seed is a number of 5000 digits, but"),
        (
            "train",
            "learning_rate",
            0,
            "train.learning_rate is 0, but must be a number above 0, at most 1",
        ),
        ("train", "betas", [], "train.betas is [], but must be two numbers from 0 to 0.99999"),
        ("train", "betas", [0.9, 1.0], "train.betas[1] is 1, but must be two numbers from 0 to 0.99999"),
        ("train", "device", "gpu", "train.device is 'gpu', but must be auto, cpu or cuda"),
        (
            "baseline",
            "hidden",
            [],
            "baseline.hidden is [], but must be a list of 1 to 6 layer widths from 1 to 4096",
        ),
        ("reg", "batch_norm", 2, "reg.batch_norm is 2, but must be true or false"),
        ("train", "batch_size", False, "train.batch_size is 0, but must be a whole number from"),
        ("reg", "batch_norm", "false", "reg.batch_norm is 'false', but must be true or false"),
        ("data", "md5", "A" * 32, f"data.md5 is '{'A' * 32}', but must be 32 hexadecimal digits"),
        (
            "data",
            "url",
            "http://a/\x1b[31m",
            r"data.url is 'http://a/\x1b[31m', but must be an http:// or https:// address",
        ),
        (
            "viz",
            "model",
            "baseline",
            "viz.model is 'baseline', but must be cnn, augmented or regularized ",
        ),
        ("viz", "image", 10_000, "viz.image is 10000, but must be null, or the index of a test image"),
        (
            "aug",
            "crop_pdd",
            2,
            "unknown key 'aug.crop_pdd' (did you mean crop_pad?): allowed there are crop_pad",
        ),
        ("aug", 1, 2, "unknown key 'aug.1': allowed there are crop_pad, flip, brightness"),
        ("aug", "a\nb", 2, r"unknown key 'aug.a\nb': allowed there are crop_pad"),
    ],
    ids=lambda item: item if isinstance(item, str) else "value",  # pytest cannot print the longest number
)
def test_a_refusal_names_key_value_and_what_is_allowed(
    section: str, key: Any, value: Any, message: str
) -> None:
    assert refusal(changed(section, key, value)).startswith(message)


@pytest.mark.parametrize(
    ("section", "key", "value", "meant"),
    [
        ("train", "epochs", 3.0, 3),
        ("train", "batch_size", 1e2, 100),
        ("aug", "crop_pad", -0.0, 0),
        ("viz", "image", 7.0, 7),
        ("baseline", "hidden", [64.0, 32], [64, 32]),
        ("cnn", "blocks", [[4.0, 8], [16.0]], [[4, 8], [16]]),
        ("reg", "batch_norm", 1, True),
        ("reg", "batch_norm", 0.0, False),
        ("cnn", "relu_logits", 1.0, True),
        ("reg", "dropout", 0, 0.0),
        ("reg", "dropout", False, 0.0),
        ("train", "seed", False, 0),
        ("aug", "crop_pad", True, 1),
        ("viz", "image", False, 0),
        ("cnn", "blocks", [[True, 8], [16]], [[1, 8], [16]]),
    ],
)
def test_what_dvc_takes_for_equal_means_the_same(section: str, key: str, value: Any, meant: Any) -> None:
    """DVC compares by ``==`` and would run nothing for such a change, so that no stage could refuse it."""
    assert value == meant
    read = getattr(getattr(check_all(changed(section, key, value)), section), key)
    assert repr(read) == repr(meant)


@pytest.mark.parametrize(
    ("override", "before", "after"),
    [
        ("aug.crop_pad=4", "  crop_pad: 2", "  crop_pad: 4"),
        ("train.learning_rate=5e-5", "  learning_rate: 0.0005", "  learning_rate: 5e-05"),
        ("viz.image=7", "  image:", "  image: 7"),
        ("reg.batch_norm=false", "  batch_norm: true", "  batch_norm: false"),
        ("baseline.hidden=[64,512]", "  - 512", "  - 64"),
        ("cnn.blocks=[[32,16],[64,64]]", "    - 32", "    - 16"),
        ("aug.crop_pad=2", "", ""),
    ],
)
def test_dvc_changes_one_line_for_one_parameter(
    override: str, before: str, after: str, tmp_path: Path
) -> None:
    """``dvc exp run -S`` writes the file anew, and loses comments and empty lines behind a list."""
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    apply_overrides(path, [override])
    pairs = zip(TEXT.split("\n"), path.read_text().split("\n"), strict=True)
    assert [pair for pair in pairs if pair[0] != pair[1]] == ([(before, after)] if before else [])


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_missing_key(section: str, key: str) -> None:
    tree = copy.deepcopy(TREE)
    del tree[section][key]
    assert refusal(tree).startswith(f"{section}.{key} is missing: it must be ")


def test_misspelt_key_is_the_mistake_not_the_missing_one() -> None:
    tree = copy.deepcopy(TREE)
    tree["aug"]["crop_pdd"] = tree["aug"].pop("crop_pad")
    assert refusal(tree).startswith("unknown key 'aug.crop_pdd' (did you mean crop_pad?)")


@pytest.mark.parametrize("section", TREE)
@pytest.mark.parametrize("value", [None, 5, "text", [1], [], True, math.nan])
def test_section_that_is_no_mapping(section: str, value: Any) -> None:
    message = refusal(TREE | {section: value})
    assert message.startswith(f"{section} is ")
    assert "must be a mapping with text keys: " + ", ".join(TREE[section]) in message


@pytest.mark.parametrize("section", TREE)
def test_missing_section(section: str) -> None:
    tree = {name: content for name, content in TREE.items() if name != section}
    assert refusal(tree).startswith(f"{section} is missing: it must be a mapping with text keys: ")


def test_unknown_section() -> None:
    assert refusal(TREE | {"augg": {}}).startswith(
        "unknown key 'augg' (did you mean aug?): allowed there are"
    )


@pytest.mark.parametrize("content", [None, [], [1], 5, "text", True, {}])
def test_file_that_is_no_mapping(content: Any) -> None:
    expected = "data is missing: " if content == {} else "the file is "
    assert refusal(content).startswith(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"cnn.blocks": [[4], [4], [4], [4], [4]]},
            "cnn.blocks is [[4], [4], [4], [4], [4]], but must be such",
        ),
        ({"cnn.blocks": [[4] * 3, [4] * 3], "cnn.kernel_size": 9}, "cnn.blocks is "),
        ({"cnn.kernel_size": 4, "cnn.padding": "same"}, "cnn.kernel_size is 4, but must be odd"),
        (
            {"data.train_size": 100},
            "train.batch_size is 128, but must be at most the number of training images, 100",
        ),
        (
            {"data.train_size": 1000, "data.validation_size": 900},
            "train.batch_size is 128, but must be at most the number of training images, 100",
        ),
        (
            {"data.train_size": 1000, "data.validation_size": 995},
            "data.validation_size is 995, but must be at least 10 less than data.train_size",
        ),
        (
            {"data.test_size": 1000, "viz.image": 1000},
            "viz.image is 1000, but must be null, or below data.test_size, 1000",
        ),
    ],
)
def test_keys_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    tree = copy.deepcopy(TREE)
    for name, value in changes.items():
        section, key = name.split(".")
        tree[section][key] = value
    assert refusal(tree).startswith(message)


BLOCKS = "\n  - - 32\n    - 32\n  - - 64\n    - 64"
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n + 1}: &a{n + 1} [{','.join([f'*a{n}'] * 9)}]\n" for n in range(12)
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["the file is null, but must be a mapping"]),
        ("# nothing\n", ["the file is null, but must be a mapping"]),
        (
            TEXT.replace("crop_pad: 2", "crop_pad: 2\n  crop_pad: 3"),
            ["valid YAML", "duplicate key", "crop_pad"],
        ),
        ("a: [1", ["is not valid YAML", "line 1"]),
        ("a:\n\t- b\n", ["is not valid YAML", "line 2"]),
        (b"data: \xe9\n", ["is not valid YAML"]),
        (b"a\x00b: 1\n", ["is not valid YAML"]),
        (TEXT + "---\na: 1\n", ["is not valid YAML", "single document"]),
        ("a: " + "[" * 1000, ["is not valid YAML: nested too deeply"]),
        (TEXT.replace("crop_pad: 2", "crop_pad: !!bool abc"), ["is not valid YAML"]),
        (TEXT.replace("crop_pad: 2", 'crop_pad: !!int ""'), ["is not valid YAML"]),
        (TEXT.replace("crop_pad: 2", "crop_pad: !!timestamp abc"), ["is not valid YAML"]),
        (TEXT.replace("crop_pad: 2", "crop_pad: 2024-99-99"), ["is not valid YAML"]),
        (TEXT.replace("crop_pad: 2", "crop_pad: " + "9" * 5000), ["is not valid YAML"]),
        (
            TEXT.replace("crop_pad: 2", "crop_pad: 0x" + "9" * 5000),
            ["aug.crop_pad is a number of 6021 digits"],
        ),
        (TEXT.replace("crop_pad: 2", "crop_pad: *nowhere"), ["is not valid YAML", "nowhere"]),
        (TEXT.replace(BLOCKS, " &me [*me]"), ["cnn.blocks[0][0] is ["]),
        (TEXT.replace("crop_pad: 2", "crop_pad: !!set {1}"), ["aug.crop_pad is {1}, but must be"]),
        (BOMB + TEXT.replace("crop_pad: 2", "crop_pad: *a12"), ["unknown key 'a0'"]),
        (TEXT + "\n? [1, 2]\n: 3\n", ["unknown key '(1, 2)'"]),
        (TEXT + "\nnull: 3\n", ["unknown key 'None'"]),
    ],
)
def test_files_that_are_refused(text: str | bytes, parts: list[str], tmp_path: Path) -> None:
    message = refused_text(text, tmp_path)
    assert all(part in message for part in parts), message


def test_endless_value_is_told_at_once(tmp_path: Path) -> None:
    """9^13 values by aliases: the message looks at a few of them."""
    anchored = TEXT.replace(
        "hidden:\n  - 512\n  - 512", "hidden: [1]\n  x:\n    " + BOMB.strip().replace("\n", "\n    ")
    )
    assert "unknown key 'baseline.x'" in refused_text(anchored, tmp_path)
    value: Any = "x"
    for _ in range(13):
        value = [value] * 9
    assert len(refusal(changed("aug", "crop_pad", value))) < 150


def test_code_in_tags_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    text = f"x: !!python/object/apply:os.mkdir ['{ran}']\n" + TEXT
    assert "is not valid YAML" in refused_text(text, tmp_path)
    assert not ran.exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml is missing: run from the root of the repository"):
        load_all(tmp_path / "none.yaml")


def bounds(schema: dict[str, Any], where: str) -> None:
    """Every number, list and text in ``schema`` has an upper bound."""
    for option in schema.get("anyOf", []):
        bounds(option, where)
    kind = schema.get("type")
    if kind in ("integer", "number"):
        assert "maximum" in schema, where
        assert {"minimum", "exclusiveMinimum"} & schema.keys(), where
    elif kind == "array":
        assert "maxItems" in schema, where
        bounds(schema["items"], where)
    elif kind == "string":
        assert {"enum", "maxLength"} & schema.keys() or schema["pattern"].endswith("{32}$"), where
    else:
        assert kind in ("boolean", "null", "object") or "anyOf" in schema, (where, schema)


def numbers(schema: Any) -> set[float]:
    """The upper bounds in ``schema``."""
    if isinstance(schema, dict):
        own = {schema[key] for key in ("maximum", "maxItems") if key in schema}
        return own | {bound for value in schema.values() for bound in numbers(value)}
    return {bound for item in schema for bound in numbers(item)} if isinstance(schema, list) else set()


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_number_has_an_upper_bound_that_is_told(section: str, key: str) -> None:
    model = Params.model_fields[section].annotation
    assert model is not None
    schema = model.model_json_schema()["properties"][key]
    bounds(schema, f"{section}.{key}")
    told = {float(word) for word in re.findall(r"\d+(?:\.\d+)?", schema["description"])}
    if key == "betas":
        told.add(2)  # in a word
    assert numbers(schema) <= told


# ---- fuzzed ----

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308, 10**400, -(10**400), 2**63, 2**64]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.dates(),
    st.lists(
        st.one_of(st.integers(-2, 300), st.floats(), st.lists(st.integers(-2, 300), max_size=6)), max_size=7
    ),
    st.dictionaries(st.one_of(st.text(max_size=4), st.integers(), st.none()), st.integers(), max_size=2),
)
SMALL: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("data", "seed"): st.integers(0, 2**32 - 1),
    ("train", "epochs"): st.integers(1, 10_000),
    ("train", "batch_size"): st.integers(2, 16),
    ("train", "learning_rate"): st.floats(0, 1, exclude_min=True),
    ("train", "betas"): st.lists(st.floats(0, 0.99999), min_size=2, max_size=2),
    ("train", "seed"): st.integers(0, 2**32 - 1),
    ("train", "precision"): st.sampled_from(["auto", "fp32"]),
    ("baseline", "hidden"): st.lists(st.integers(1, 16), min_size=1, max_size=6),
    ("cnn", "blocks"): st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=5),
    ("cnn", "kernel_size"): st.integers(1, 11),
    ("cnn", "padding"): st.sampled_from(["valid", "same"]),
    ("aug", "crop_pad"): st.integers(0, 16),
    ("aug", "flip"): st.floats(0, 1),
    ("aug", "brightness"): st.floats(0, 1),
    ("reg", "batch_norm"): st.booleans(),
    ("reg", "dropout"): st.floats(0, 0.95),
    ("reg", "weight_decay"): st.floats(0, 1),
    ("reg", "label_smoothing"): st.floats(0, 0.95),
    ("reg", "one_cycle_peak"): st.none() | st.floats(0, 1, exclude_min=True),
    ("reg", "averaging"): st.floats(0, 1),
    ("reg", "stronger_crop"): st.integers(0, 15),
    ("reg", "muon"): st.floats(0, 1),
    ("viz", "image"): st.none() | st.integers(0, 9999),
}


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """The committed tree with one to three odd changes, and perhaps sensible ones."""
    tree: dict[Any, Any] = copy.deepcopy(TREE)
    for section, key in draw(st.lists(st.sampled_from(sorted(SMALL)), max_size=5)):
        tree[section][key] = draw(SMALL[section, key])
    for _ in range(draw(st.integers(1, 3))):
        section, key = draw(st.sampled_from(KEYS))
        change = draw(st.sampled_from(["value", "value", "value", "drop", "add", "section", "no section"]))
        content = tree.get(section)
        if change == "section":
            tree[section] = draw(ODD)
        elif change == "no section":
            tree.pop(section, None)
        elif not isinstance(content, dict):
            continue
        elif change == "value":
            content[key] = draw(ODD)
        elif change == "drop":
            content.pop(key, None)
        else:
            content[draw(st.one_of(st.text(max_size=10), st.integers(), st.none()))] = draw(ODD)
    return tree


def names_of(tree: Any) -> set[str]:
    """Every name that a message about ``tree`` can name."""
    sections = {*TREE, *(str(name) for name in tree)}
    keys = {key for _, key in KEYS} | {
        str(key) for content in tree.values() if isinstance(content, dict) for key in content
    }
    return {ascii(name)[1:-1] for name in sections | keys}


def refusal_or_params(read: Callable[[], Params]) -> str | Params:
    """What ``read`` gives, or the one line it refuses with; any other exception is a failure."""
    try:
        return read()
    except UserError as error:
        return str(error)


def accepted_or_refused(tree: Any) -> None:
    result = refusal_or_params(lambda: check_all(tree))
    if isinstance(result, str):
        assert result.isprintable()
        assert len(result) < 500
        assert result.startswith("params.yaml: ")
        assert any(name in result.partition(": ")[2] for name in names_of(tree))
    else:
        # as large a batch as there are images; two of them show as much as all
        train = result.train.model_copy(update={"batch_size": min(result.train.batch_size, len(DATA.train))})
        trains_one_step(result.model_copy(update={"train": train}), images=2)


@given(mutated())
@settings(max_examples=60, deadline=None)
def test_mutated_trees(tree: Any) -> None:
    accepted_or_refused(tree)


@pytest.mark.slow
@given(mutated())
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_mutated_trees(tree: Any) -> None:
    accepted_or_refused(tree)


@given(st.one_of(mutated().map(lambda tree: yaml.safe_dump(tree, allow_unicode=True)), st.text(max_size=60)))
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_mutated_files(tmp_path: Path, text: str) -> None:
    """The same through YAML text, and text that is none."""
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    result = refusal_or_params(lambda: load_all(path))
    if isinstance(result, str):
        assert result.isprintable()
        assert result.startswith(str(path))


def tiny() -> Data:
    """Sixteen random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (16, 32, 32, 3), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(16) % 10)
    return Data(split, None, split, torch.full((3,), 0.5), torch.full((3,), 0.3), tuple("abcdefghij"))


DATA = tiny()


@st.composite
def sensible(draw: st.DrawFn) -> Any:
    """Trees that are all accepted but where the blocks do not fit the image: small enough to train."""
    tree = copy.deepcopy(TREE)
    tree["train"]["device"] = "cpu"
    for section, key in SMALL:
        tree[section][key] = draw(SMALL[section, key])
    return tree


def trains_one_step(params: Params, images: int) -> None:
    runtime = prepare(params.train)
    cnn, reg = params.cnn, params.reg
    aug = dict(params.aug)
    augmented, stronger = (
        augmentation(**aug | {"crop_pad": aug["crop_pad"] + more}) for more in (0, reg.stronger_crop)
    )
    recipe = Recipe(reg.label_smoothing, reg.weight_decay, reg.one_cycle_peak, reg.averaging, reg.muon)
    for model, transform, method in (
        (MLP(**dict(params.baseline)), None, PLAIN),
        (CNN(**dict(cnn)), None, PLAIN),
        (CNN(**dict(cnn)), augmented, PLAIN),
        (CNN(**dict(cnn), batch_norm=reg.batch_norm, dropout=reg.dropout), stronger, recipe),
    ):
        trainer = Trainer(model, DATA, params.train, runtime, transform, method)
        model.train()
        assert torch.isfinite(trainer.step(torch.arange(images)))
        assert all(torch.isfinite(weight).all() for weight in model.parameters())


def sensible_trains_one_step(tree: Any) -> None:
    params = refusal_or_params(lambda: check_all(tree))
    if isinstance(params, str):
        assert params.startswith(("params.yaml: cnn.blocks is ", "params.yaml: cnn.kernel_size is "))
    else:
        trains_one_step(params, params.train.batch_size)


@given(sensible())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_accepted_parameters_train_one_step(tree: Any) -> None:
    sensible_trains_one_step(tree)


@pytest.mark.slow
@given(sensible())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_accepted_parameters_train_one_step(tree: Any) -> None:
    sensible_trains_one_step(tree)
