"""Run a training to its end, or as far as it comes."""

import hashlib
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.common.files import write_json
from stages.training.checkpoint import Checkpoint, runs_folder
from stages.training.results import write_results
from stages.training.trainer import Trainer


def train_and_write(name: str, trainer: Trainer) -> None:
    """Train the model called ``name``, and write everything that its stage leaves behind.

    Raises:
        UserError: the loss became NaN or infinite, or another process trains this very model.
        OSError: a file could not be written; the checkpoint stays, so nothing is trained again.
        KeyboardInterrupt: with a line that says how to continue.
    """
    with Checkpoint.locked(name, trainer.key) as checkpoint:
        train(name, trainer, checkpoint)
        accuracy = write_results(name, trainer)
        model = Path(f"models/{name}.safetensors").read_bytes()
        write_record(name, trainer, model_sha256=hashlib.sha256(model).hexdigest())
        checkpoint.delete()
    print(f"{name}: test accuracy {accuracy:.4f}", file=sys.stderr)


def train(name: str, trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Train the epochs that are missing, with a checkpoint and a run record after each.

    Raises:
        UserError: the loss became NaN or infinite.
        KeyboardInterrupt: with a line that says how to continue.
    """
    state = checkpoint.load()
    if state is not None:
        trainer.load_state_dict(state)
        print(f"{name}: continues after epoch {len(trainer.history)}", file=sys.stderr)
    epochs, saved = trainer.train.epochs, len(trainer.history)
    try:
        with tqdm(
            total=epochs * trainer.steps,
            initial=len(trainer.history) * trainer.steps,
            desc=name,
            unit="batch",
            disable=not sys.stderr.isatty(),
        ) as bar:
            while len(trainer.history) < epochs:
                trainer.epoch(after_step=bar.update)
                checkpoint.save(trainer.state_dict())
                saved = len(trainer.history)
                write_record(name, trainer)
                tell(name, trainer, bar)
    except KeyboardInterrupt as stop:
        stop.args = (
            f"{name}: stopped after epoch {saved} of {epochs}; the same command continues from there",
        )
        raise


def tell(name: str, trainer: Trainer, bar: "tqdm[Any]") -> None:
    """Show the last epoch's figures: beside the bar, or without a terminal in a line of their own."""
    figures = trainer.history[-1]
    line = (
        f"train loss {figures['train_loss']:.4f}  test loss {figures['test_loss']:.4f}  "
        f"accuracy {figures['test_accuracy']:.4f}"
    )
    bar.set_postfix_str(line)
    if bar.disable:
        epochs, seconds = f"{len(trainer.history)}/{trainer.train.epochs}", trainer.timing[-1]["seconds"]
        print(f"{name}: epoch {epochs}  {line}  {seconds:.1f} s", file=sys.stderr, flush=True)


def write_record(name: str, trainer: Trainer, **more: str) -> None:
    """Write ``runs/<name>.json``: what varies from run to run, ``more``, and the figures so far."""
    epochs = [figures | timing for figures, timing in zip(trainer.history, trainer.timing, strict=True)]
    record = {**trainer.runtime.describe(), "reason": trainer.runtime.reason, **more, "epochs": epochs}
    write_json(runs_folder() / f"{name}.json", record)
