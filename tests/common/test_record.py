"""A stage ends well only where what DVC will record is what it has worked with."""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from stages.common import files, parent, record, snapshot, stage
from stages.common.errors import UserError
from stages.common.params import load
from stages.common.parent import Parent
from stages.filters.params import Viz
from stages.networks.params import Baseline
from stages.training.params import Train
from tests.project import ROOT, STAGES, change, commit, make_repository
from tests.tiny import tiny_data, tiny_project

PIPELINE = {
    "stages": {
        "train": {
            "cmd": "python -m stages.train",
            "deps": ["data/images", "stages/common", "stages/train.py"],
            "params": ["baseline", "train"],
            "outs": ["models/it"],
            "metrics": [{"metrics/it.json": {"cache": False}}],
            "plots": [{"plots/it": {"cache": False}}],
        }
    }
}


@pytest.fixture
def project(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project whose stage `train` has begun, and read its parameters and its images."""
    for name in ("stages/common/a.py", "stages/other/b.py", "stages/train.py", "data/images", "unread"):
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        (workplace / name).write_text(name)
    shutil.copy(ROOT / "params.yaml", workplace)
    shutil.copy(ROOT / ".dvcignore", workplace)
    (workplace / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    monkeypatch.setattr(record, "AT_START", snapshot.code(Path()))
    monkeypatch.setattr(record, "_declared", None)
    record.begin("train")
    load(Baseline), load(Train)
    with files.reading(Path("data/images")):
        pass
    for result in ("models/it", "plots/it/new.png", "runs/it.json"):
        files.write_bytes(Path(result), b"ours")
    monkeypatch.setattr(parent, "PARENT", Parent(psutil.Process()))
    return workplace


def edit(name: str, old: str, new: str) -> None:
    path = Path(name)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def nothing() -> None:
    pass


def there_and_back() -> None:
    content = Path("params.yaml").read_bytes()
    for path in ("params.yaml", "dvc.yaml", "stages/common/a.py", "data/images"):
        before = Path(path).read_bytes()
        Path(path).unlink()
        Path(path).write_bytes(before)
    assert Path("params.yaml").read_bytes() == content


def droppings() -> None:
    Path("stages/common/__pycache__").mkdir()
    for name in ("__pycache__/a.cpython-311.pyc", ".a.py.swp", "a.py~", ".DS_Store"):
        Path("stages/common", name).write_text("left behind")
    Path("stages/common/.#a.py").symlink_to("nowhere")  # Emacs' lock
    Path("stages/common/circle").symlink_to("..")
    Path("stages/common/itself").symlink_to("itself")
    os.mkfifo("stages/common/pipe")
    Path("plots/it/.DS_Store").write_text("left behind")


@pytest.mark.parametrize(
    "what",
    [
        nothing,
        there_and_back,
        droppings,
        lambda: edit("params.yaml", "crop_pad: 2", "crop_pad: 4"),  # a section that it does not read
        lambda: edit("params.yaml", "epochs: 25", "epochs: 25  # enough"),
        lambda: edit("stages/other/b.py", "b", "c"),
        lambda: edit("unread", "unread", "read"),
        lambda: Path("dvc.yaml").unlink(),
        lambda: Path("runs/it.json").unlink(),
        lambda: Path("models/another").write_text("of another stage"),
    ],
)
def test_what_it_did_not_work_with_may_change(project: Path, what: Callable[[], None]) -> None:
    what()
    record.verify("do this")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            lambda: edit("params.yaml", "epochs: 25", "epochs: 3"),
            "params.yaml changed while this ran: train.epochs was 25 and is 3",
        ),
        (
            lambda: edit("params.yaml", "  hidden:", "  width: 3\n  hidden:"),
            "params.yaml changed while this ran: baseline.width was missing and is 3",
        ),
        (lambda: Path("params.yaml").write_text("{"), "while this ran, params.yaml is not valid YAML: .*"),
        (lambda: Path("params.yaml").unlink(), "while this ran, params.yaml is missing: .*"),
        (lambda: edit("stages/train.py", "train", "trains"), "stages/train.py changed while this ran"),
        (
            lambda: Path("stages/common/new.py").write_text("new"),
            "stages/common/new.py appeared while this ran",
        ),
        (lambda: Path("stages/common/a.py").unlink(), "stages/common/a.py disappeared while this ran"),
        (lambda: edit("data/images", "images", "others"), "data/images changed while this ran"),
        (lambda: Path("data/images").unlink(), "data/images disappeared while this ran"),
        (lambda: edit("models/it", "ours", "mine"), "something else changed models/it while this ran"),
        (lambda: Path("models/it").unlink(), "something else removed models/it while this ran"),
        (
            lambda: Path("plots/it/old.png").write_text("left"),
            "something else wrote plots/it/old.png while this ran",
        ),
    ],
)
def test_what_it_worked_with_is_named_where_it_changed(
    project: Path, what: Callable[[], None], message: str
) -> None:
    what()
    with pytest.raises(UserError, match=rf"^{message}: do this$"):
        record.verify("do this")


def test_another_branch_is_named_in_one_line(project: Path) -> None:
    make_repository(project)
    subprocess.run(["git", "checkout", "-q", "-b", "other"], check=True)
    edit("params.yaml", "epochs: 25", "epochs: 3")
    edit("params.yaml", "batch_size: 128", "batch_size: 64")
    edit("stages/common/a.py", "a", "b")
    edit("stages/train.py", "train", "trains")
    commit(project, "two")
    subprocess.run(["git", "checkout", "-q", "-"], check=True)
    record.verify("do this")
    subprocess.run(["git", "checkout", "-q", "other"], check=True)
    with pytest.raises(UserError) as error:
        record.verify("do this")
    assert str(error.value) == (
        "params.yaml changed while this ran: train.batch_size was 128 and is 64; "
        "params.yaml changed while this ran: train.epochs was 25 and is 3; "
        "stages/common/a.py changed while this ran (and 1 more): do this"
    )


def test_a_section_that_changes_between_two_reads(project: Path) -> None:
    edit("params.yaml", "epochs: 25", "epochs: 3")
    load(Train)
    with pytest.raises(UserError, match="epochs was 25 and is 3"):
        record.verify("do this")
    edit("params.yaml", "epochs: 3", "epochs: 25")
    with pytest.raises(UserError, match="epochs was 3 and is 25"):
        record.verify("do this")


def test_an_input_that_changes_while_it_is_read(workplace: Path) -> None:
    path = workplace / "images"
    path.write_text("one")
    (workplace / "new").write_text("one")
    with pytest.raises(UserError, match="changed while it was read"), files.reading(path):
        (workplace / "new").replace(path)


def test_code_that_changed_while_it_was_imported(project: Path) -> None:
    edit("stages/common/a.py", "a", "b")
    with pytest.raises(UserError, match=r"^stages/common/a.py changed while it was imported: run"):
        record.begin("train")


def test_a_stage_that_dvc_yaml_has_no_more(project: Path) -> None:
    Path("dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(UserError, match=r"^dvc.yaml has no stage train any more: run"):
        record.begin("train")


def test_another_dependency_than_dvc_has_read(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC resolves ``${viz.model}`` once, before its first stage runs."""
    tiny_project(workplace, tiny_data(), viz={"model": "augmented"})
    main = importlib.import_module("stages.visualize_filters").main
    monkeypatch.setattr(record, "_declared", None)
    for wrong in ("cnn", ""):
        monkeypatch.setattr(sys, "argv", ["visualize_filters", wrong])
        with pytest.raises(SystemExit) as end:
            stage.run(main, Viz, "model")
        assert end.value.code == (
            f"error: model is '{wrong}', but must be as in params.yaml, 'augmented': set viz.model there"
        )
    monkeypatch.setattr(parent, "watch", lambda: None)
    with monkeypatch.context() as under_dvc:
        under_dvc.setattr(parent, "PARENT", Parent(psutil.Process()))
        under_dvc.setattr(sys, "argv", ["visualize_filters", "cnn"])
        shutil.copy(ROOT / "dvc.yaml", workplace)
        (workplace / "stages").symlink_to(ROOT / "stages")
        under_dvc.setattr(record, "AT_START", snapshot.code(Path()))
        with pytest.raises(SystemExit) as end:
            stage.run(main, Viz, "model")
    assert end.value.code == (
        "error: viz.model is 'cnn' in the command and 'augmented' in params.yaml, which was changed after "
        "DVC had read it: run the command again"
    )
    monkeypatch.setattr(sys, "argv", ["visualize_filters", "augmented"])
    with pytest.raises(SystemExit, match=r"^error: models/augmented.safetensors is missing"):
        stage.run(main, Viz, "model")


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_runs_guarded(name: str) -> None:
    tree = ast.parse((ROOT / f"stages/{name}.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in imports if any(alias.name == "run" for alias in node.names)] == [
        "stages.common.stage"
    ]
    arguments = "main, Viz, 'model'" if name == "visualize_filters" else "main"
    assert ast.unparse(tree.body[-1]) == f"if __name__ == '__main__':\n    run({arguments})"


@pytest.mark.parametrize("name", STAGES)
def test_an_edit_while_it_writes_is_noticed_by_every_stage(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"download": "data.seed", "visualize_filters": "viz.image"}.get(name, "train.learning_rate")
    tiny_project(
        workplace, tiny_data(), data={"source": "synthetic", "validation_size": 0}, viz={"model": "cnn"}
    )
    for path in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / path, workplace)
    (workplace / "stages").symlink_to(ROOT / "stages")
    monkeypatch.setattr(sys, "argv", [name])
    monkeypatch.setattr(record, "_declared", None)
    monkeypatch.setattr(record, "AT_START", snapshot.code(ROOT))
    if name == "visualize_filters":
        stage.run(importlib.import_module("stages.train_cnn").main)
    replace = os.replace
    done: list[Path] = []

    def replacing(source: Path, target: Path) -> None:
        replace(source, target)
        if "runs" not in Path(target).parts and not done:  # a result
            done.append(target)
            change(workplace, key, 0.5 if key == "train.learning_rate" else 3)

    monkeypatch.setattr(os, "replace", replacing)
    with pytest.raises(SystemExit) as end:
        stage.run(importlib.import_module(f"stages.{name}").main)
    assert str(end.value.code).startswith(f"error: params.yaml changed while this ran: {key} was ")
    assert done


# Where outputs go


def test_a_link_out_of_the_repository_is_refused_where_dvc_refuses_it(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("disk")
    Path("metrics").rmdir()
    Path("metrics").symlink_to(outside)  # Git's, not DVC's: DVC takes it
    record.begin("train")
    shutil.rmtree("models")
    Path("models").symlink_to(outside)
    record.begin("train")  # no Git, no refusal
    Path(".git").mkdir()
    with pytest.raises(
        UserError, match=rf"^models is a link out of the Git repository, to '{outside}'"
    ) as error:
        record.begin("train")
    assert "dvc cache dir --local" in str(error.value)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    record.begin("train")  # in a tree without Git, in a folder of someone's repository
    shutil.rmtree(".dvc")
    Path("models").unlink()
    Path("inside").mkdir()
    Path("models").symlink_to("inside")
    record.begin("train")


def test_an_output_that_cannot_be_written_is_told_at_the_start(project: Path) -> None:
    Path("metrics").rmdir()
    Path("metrics").write_text("in the way")
    with pytest.raises(UserError, match=r"^metrics/it.json cannot be written: 'metrics' takes no new file"):
        record.begin("train")


def test_a_disk_that_is_too_full(workplace: Path) -> None:
    free = shutil.disk_usage(workplace).free
    files.require_space(Path("none/yet"), free // 2)
    with pytest.raises(UserError, match=r"^none/yet/: the disk has [\d,]+ MB left, but [\d,]+ MB are needed"):
        files.require_space(Path("none/yet"), 2 * free)


def test_the_disk_of_the_cache_is_too_full(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_repository(project)
    for words in (("init", "-q"), ("cache", "dir", "--local", "elsewhere")):
        subprocess.run([sys.executable, "-m", "dvc", *words], check=True)
    Path("elsewhere").mkdir()
    usage = shutil.disk_usage(project)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=10**6 if "elsewhere" in str(path) else 10**9)
    )
    record._cache_of_dvc.cache_clear()
    with pytest.raises(UserError, match=r"elsewhere/: the disk has 1 MB left, but 100 MB are needed"):
        record.require_room(Path("data/images"), 10**8)
    record.require_room(Path("data/images"), 900_000)
    record._cache_of_dvc.cache_clear()
    with pytest.raises(UserError, match=r"^data/: the disk has 1,000 MB left"):
        record.require_room(Path("data/images"), 2 * 10**9)


# What DVC has recorded


def test_what_dvc_has_recorded_is_found_in_its_run_cache(project: Path) -> None:
    Path("models/it").write_text("a model")
    result = record.description(Path("models/it"))
    result = json.loads(json.dumps(result))  # as the checkpoint keeps it
    entry = {
        "cmd": "python -m stages.train",
        "deps": [{"path": path, "md5": md5} for path, md5 in result["code"].items()],
        "params": result["params"],
        "outs": [{"path": "models/it", "md5": result["model_md5"]}],
    }
    path = Path(".dvc/cache/runs/ab/abc/def")
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(entry))
    written = path.stat().st_mtime
    assert not record.recorded(result, written + 1)  # DVC writes the entry before it takes the model
    model = Path(".dvc/cache/files/md5", result["model_md5"][:2], result["model_md5"][2:])
    model.parent.mkdir(parents=True)
    model.write_text("a model")
    assert record.recorded(result, written + 1)
    assert not record.recorded(result, written - 1)  # by then nobody had
    others = (
        {"model_md5": "0" * 32},
        {"code": result["code"] | {"stages/train.py": "0" * 32}},
        {"params": {"params.yaml": result["params"]["params.yaml"] | {"train": {}}}},
    )
    for other in others:
        assert not record.recorded(result | other, written + 1)


def test_folders_have_the_md5_that_dvc_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `dvc.lock` has them, for what is as it was when the lock was written."""
    from dvc.repo import Repo

    monkeypatch.chdir(ROOT)
    declared = record._read("train_augmented")
    with Repo(str(ROOT)) as repo:
        (found,) = repo.stage.collect("train_augmented")
        for dep in found.deps:
            if dep.def_path in declared.code:
                dep.save()
                assert record._md5_in_dvc(dep.def_path, declared) == dep.hash_info.value
