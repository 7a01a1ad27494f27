from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.params import load_all
from tools import quickstart
from tools.charts import dvc
from tools.quickstart import REDUCED, prepare


def test_the_copy_has_the_changes_and_the_other_defaults(tmp_path: Path) -> None:
    prepare(tmp_path, REDUCED)
    copied = load_all(tmp_path / "params.yaml").model_dump()
    changed = load_all().model_dump()
    for section, values in REDUCED.items():
        changed[section].update(values)
    assert copied == changed
    assert (tmp_path / ".dvcignore").read_bytes() == Path(".dvcignore").read_bytes()


def test_a_second_preparation_keeps_results_and_drops_old_sources(tmp_path: Path) -> None:
    prepare(tmp_path, REDUCED)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/cnn.safetensors").write_text("a result")
    (tmp_path / "dvc.lock").write_text("a lock")
    (tmp_path / "stages/gone.py").write_text("a source that the checkout does not have")
    (tmp_path / "stages/download.py").write_text("an old source")
    prepare(tmp_path, REDUCED)
    assert (tmp_path / "models/cnn.safetensors").read_text() == "a result"
    assert (tmp_path / "dvc.lock").read_text() == "a lock"
    assert not (tmp_path / "stages/gone.py").exists()
    assert (tmp_path / "stages/download.py").read_bytes() == Path("stages/download.py").read_bytes()


def test_changes_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.epochs is 0"):
        prepare(tmp_path, {"train": {"epochs": 0}})


@pytest.mark.slow
def test_the_copy_is_a_pipeline_without_git(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path, REDUCED)
    assert dvc(tmp_path, "stage", "list", "--name-only") == 0
    assert "train_regularized" in capfd.readouterr().out.split()
    assert dvc(tmp_path, "config", "core.no_scm") == 0
    assert capfd.readouterr().out.strip() == "true"


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["--fast"], 2), (["folder"], 2)])
def test_arguments_are_checked(
    arguments: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["quickstart", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        quickstart.main()
    assert stopped.value.code == status
    assert not list(tmp_path.iterdir())
