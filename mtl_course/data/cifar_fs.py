"""CIFAR-FS: the classes of CIFAR-100 in three published parts for few-shot learning.

Classes go by their names in ``data.load("cifar100").names``. Only classes tell the parts apart, so
CIFAR-100's training and test images go together.

Source: Bertinetto, Henriques, Torr and Vedaldi, "Meta-learning with differentiable closed-form
solvers", ICLR 2019: 64, 16 and 20 classes drawn at random, of all 600 images each.
"""

from collections.abc import Sequence

SPLIT = {
    "train": """
        apple aquarium_fish bear bee bottle bowl boy bridge bus can castle caterpillar
        chair clock cloud cockroach couch cup dinosaur dolphin elephant forest girl
        hamster house kangaroo keyboard lawn_mower lion lizard lobster mountain mouse
        mushroom oak_tree orange orchid palm_tree pear pine_tree plate porcupine possum
        rabbit raccoon ray road seal shrew skunk skyscraper snake spider squirrel
        streetcar sunflower tank tiger train trout tulip turtle willow_tree wolf
    """.split(),  # noqa: SIM905 - easier to compare with the paper
    "validation": """
        beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree
        motorcycle otter sea shark television tractor
    """.split(),  # noqa: SIM905 - easier to compare with the paper
    "test": """
        baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose
        snail sweet_pepper table telephone wardrobe whale woman worm
    """.split(),  # noqa: SIM905 - easier to compare with the paper
}


def classes(names: Sequence[str]) -> dict[str, list[int]]:
    """Part -> the labels of its classes, ascending.

    names: CIFAR-100's 100 fine classes, in the order of their labels.
    ValueError if they are others.
    """
    number = {str(name): label for label, name in enumerate(names)}
    if set(number) != set().union(*SPLIT.values()):
        raise ValueError(
            "CIFAR-FS is a split of the 100 fine classes of CIFAR-100, and these are other names."
        )
    return {part: sorted(number[name] for name in members) for part, members in SPLIT.items()}
