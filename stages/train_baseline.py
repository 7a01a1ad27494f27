"""Programming a.1: the baseline, an MLP with batch normalization."""

from stages.common.dataset import Data, load_data
from stages.common.params import load
from stages.common.stage import run
from stages.networks.models import MLP
from stages.networks.params import Baseline
from stages.training.params import Train
from stages.training.run import train_and_write
from stages.training.runtime import Runtime, prepare
from stages.training.trainer import Trainer


def main() -> None:
    train = load(Train)
    runtime = prepare(train)
    train_and_write("baseline", trainer(load_data(), train, runtime))


def network() -> MLP:
    return MLP(**dict(load(Baseline)))


def trainer(data: Data, train: Train, runtime: Runtime) -> Trainer:
    return Trainer(network(), data, train, runtime)


if __name__ == "__main__":
    run(main)
