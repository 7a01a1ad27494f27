"""Programming a.2: the CNN."""

from stages.common.dataset import Data, load_data
from stages.common.params import load
from stages.common.stage import run
from stages.networks.models import CNN
from stages.networks.params import Cnn
from stages.training.params import Train
from stages.training.run import train_and_write
from stages.training.runtime import Runtime, prepare
from stages.training.trainer import Trainer


def main() -> None:
    train = load(Train)
    runtime = prepare(train)
    train_and_write("cnn", trainer(load_data(), train, runtime))


def network() -> CNN:
    return CNN(**dict(load(Cnn)))


def trainer(data: Data, train: Train, runtime: Runtime) -> Trainer:
    return Trainer(network(), data, train, runtime)


if __name__ == "__main__":
    run(main)
