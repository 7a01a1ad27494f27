"""The steps of docs/changing.md, taken one after the other."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.project import ROOT, TINY, command, copy_project, dvc, executed, series

PAGE = (ROOT / "docs/changing.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's blocks of code in ``language``."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def files(patch: str) -> list[str]:
    """The files that ``patch`` changes."""
    return re.findall(r"^diff --git a/(\S+) b/", patch, flags=re.MULTILINE)


def test_a_model_touches_four_files_at_most_and_a_transformation_two() -> None:
    transformation, layer, model, chart = map(files, blocks("diff"))
    assert transformation == ["params.yaml", "stages/augmentation/transforms.py"]
    assert layer == ["params.yaml", "stages/networks/models.py", "stages/networks/params.py"]
    assert model == ["dvc.yaml", "stages/filters/params.py", "stages/train_wide.py"]
    assert chart == ["dvc.yaml"]
    # `errors.run` would end as well, but compare nothing of what DVC records
    assert "from stages.common.stage import run\n" in blocks("diff")[2]


@pytest.mark.slow
def test_every_step_works(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "clone", TINY | {"aug": {"grayscale": 0.5}}, blocks("diff"))
    targets = ("train_cnn", "train_regularized", "train_wide")  # all that the page is about
    assert executed(dvc(folder, "repro", *targets)) == sorted(["download", *targets])

    cnn, wide = (json.loads((folder / f"metrics/{name}.json").read_text()) for name in ("cnn", "wide"))
    assert cnn.keys() == wide.keys()
    assert cnn["train_loss"] != wide["train_loss"]

    plots = json.loads(dvc(folder, "plots", "show", "--json"))["data"]
    assert "cnn_losses" in plots
    for chart in ("accuracy", "losses"):
        rows = [row for part in plots[chart] for row in part["content"]["data"]["values"]]
        assert {Path(series(row)[0]).stem for row in rows} == {"cnn", "regularized", "wide"}

    summary = command(folder, "python", "-m", "tools.summary")
    assert summary.returncode == 0, summary.stderr
    assert re.search(r"^wide\n.*conv1 +8x30x30", summary.stdout, flags=re.MULTILINE | re.DOTALL)

    hidden = command(folder, "dvc", "exp", "run", "-S", "cnn.hidden=128", "train_cnn")
    assert executed(hidden.stdout) == ["train_cnn"], hidden.stderr

    (script,) = blocks("python")
    (folder / "guess.py").write_text(script)
    Image.new("RGB", (200, 100), "navy").save(folder / "picture.jpg")
    guess = command(folder, "python", "guess.py", "picture.jpg")
    assert re.fullmatch(r"( *\d+\.\d%  \w+\n){3}", guess.stdout), guess.stderr
