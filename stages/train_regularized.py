"""Programming b.5: the CNN on augmented images, regularized."""

from stages.augmentation.transforms import Aug, augmentation
from stages.common.dataset import Data, load_data
from stages.common.params import load
from stages.common.stage import run
from stages.networks.models import CNN
from stages.networks.params import Cnn
from stages.regularization.params import Reg
from stages.training.optimization import Recipe
from stages.training.params import Train
from stages.training.run import train_and_write
from stages.training.runtime import Runtime, prepare
from stages.training.trainer import Trainer


def main() -> None:
    train = load(Train)
    runtime = prepare(train)
    train_and_write("regularized", trainer(load_data(), train, runtime))


def network() -> CNN:
    reg = load(Reg)
    return CNN(**dict(load(Cnn)), batch_norm=reg.batch_norm, dropout=reg.dropout)


def trainer(data: Data, train: Train, runtime: Runtime) -> Trainer:
    reg = load(Reg)
    recipe = Recipe(
        label_smoothing=reg.label_smoothing,
        weight_decay=reg.weight_decay,
        one_cycle_peak=reg.one_cycle_peak,
        averaging=reg.averaging,
        muon=reg.muon,
    )
    aug = dict(load(Aug))
    aug["crop_pad"] += reg.stronger_crop
    return Trainer(network(), data, train, runtime, augmentation(**aug), recipe)


if __name__ == "__main__":
    run(main)
