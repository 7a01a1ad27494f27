"""Run a training to its end, or as far as it comes."""

import hashlib
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.common import record
from stages.common.files import require_space, write_json
from stages.training.checkpoint import Checkpoint, runs_folder, tidy
from stages.training.results import write_metrics, write_results
from stages.training.trainer import Trainer


def train_and_write(name: str, trainer: Trainer) -> None:
    """Train the model called ``name``, and write everything that its stage leaves behind.

    The checkpoint stays: where DVC does not record the result, nothing is trained again.

    Raises:
        UserError: the loss became NaN or infinite, or parameters or code changed while it was trained.
        OSError: a file could not be written.
        KeyboardInterrupt: with a line that says how to continue.
    """
    weights = sum(tensor.nbytes for tensor in trainer.model.state_dict().values())
    require_space(runs_folder(), 8 * weights)  # two checkpoints of weights, average and Adam's two moments
    record.require_room(Path(f"models/{name}.safetensors"), weights)
    with Checkpoint.locked(name, trainer.identity) as checkpoint:
        tidy()
        train(name, trainer, checkpoint)
        record.verify_inputs(
            "what was trained is kept: put this back and run again to take it, or run again to train anew"
        )
        accuracy = write_results(name, trainer)
        model = Path(f"models/{name}.safetensors")
        write_record(name, trainer, model_sha256=hashlib.sha256(model.read_bytes()).hexdigest())
        checkpoint.save(trainer.state_dict(), trainer.train.epochs, record.description(model))
    print(f"{name}: test accuracy {accuracy:.4f}", file=sys.stderr)


def train(name: str, trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Train the epochs that are missing, with a checkpoint, the metrics and a run record after each.

    Raises:
        UserError: the loss became NaN or infinite.
        KeyboardInterrupt: with a line that says how to continue.
    """
    state = checkpoint.resume()
    if state is not None:
        trainer.load_state_dict(state)
        done = len(trainer.history)
        kept = "takes the training that has ended" if done == trainer.train.epochs else "continues"
        print(f"{name}: {kept} after epoch {done}", file=sys.stderr)
        if done < trainer.train.epochs:  # else the final ones may be there, and DVC about to record them
            write_metrics(name, trainer)
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
                checkpoint.save(trainer.state_dict(), len(trainer.history))
                saved = len(trainer.history)
                write_metrics(name, trainer)
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
    """Write ``runs/<name>.json``: what varies from run to run, ``more``, and how long each epoch took."""
    epochs = [{"epoch": number} | timing for number, timing in enumerate(trainer.timing, start=1)]
    content = {**trainer.runtime.describe(), "reason": trainer.runtime.reason, **more, "epochs": epochs}
    write_json(runs_folder() / f"{name}.json", content)
