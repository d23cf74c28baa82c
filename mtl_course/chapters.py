"""The chapters and the labs of the course.

This is the one place that first cells, title cards, `setup` and `progress` read.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chapter:
    """One chapter; its times are minutes.

    Args:
        number: two digits.
        slug: of the notebook's file name.
        title: as the book shows it.
        question: the one that the chapter answers.
        read: time to read it.
        cpu: time to run it on two CPU cores.
        gpu: time of its full experiment on a Colab T4; None until a record has timed it.
    """

    number: str
    slug: str
    title: str
    question: str
    read: int
    cpu: int
    gpu: int | None

    @property
    def notebook(self) -> str:
        """The notebook's path in the repository."""
        return f"notebooks/{self.number}_{self.slug}.ipynb"

    @property
    def heading(self) -> str:
        """Title with its number.

        The book numbers nothing by itself: it may lack a chapter between two that it has.
        """
        return f"{int(self.number)}. {self.title}"

    @property
    def name(self) -> str:
        """What a sentence calls it."""
        return f"Chapter {self.number}"


@dataclass(frozen=True)
class Lab(Chapter):
    """An open task: its number is ``"lab_1"``, what it takes to read is the time that it takes.

    Args:
        stars: how hard it is, 1 to 3.
        rungs: what its ladder's rungs are called, the lowest first.
    """

    stars: int
    rungs: tuple[str, ...]

    @property
    def heading(self) -> str:
        """Title with its number."""
        return f"{self.name}. {self.title}"

    @property
    def name(self) -> str:
        """What a sentence calls it."""
        return f"Lab {self.number.removeprefix('lab_')}"


CHAPTERS = {
    chapter.number: chapter
    for chapter in [
        Chapter(
            "01",
            "mtl_objective",
            "The multi-task objective",
            "When is it worth learning several tasks together?",
            35,
            1,
            None,
        ),
        Chapter(
            "02",
            "transfer_objective",
            "The transfer objective",
            "What does a source task give a target task, and when does it hurt?",
            35,
            1,
            None,
        ),
        Chapter(
            "03",
            "training_on_gpu",
            "From NumPy to the GPU",
            "What must change so that the same code trains a hundred times faster, and is it still"
            " right?",
            40,
            1,
            None,
        ),
        Chapter(
            "04",
            "architectures",
            "Sharing architectures",
            "What should the tasks share?",
            35,
            1,
            None,
        ),
        Chapter(
            "05",
            "loss_weighting",
            "Losses and their weights",
            "How should losses in different units be added?",
            35,
            1,
            None,
        ),
        Chapter(
            "06",
            "gradient_conflict",
            "When tasks conflict",
            "When two losses pull in different directions, does gradient surgery help?",
            40,
            1,
            None,
        ),
        Chapter(
            "07",
            "task_relations",
            "Which tasks belong together",
            "Can you tell before training which tasks belong together?",
            40,
            1,
            None,
        ),
        Chapter(
            "08",
            "cnn_multitask",
            "Convolutional multi-task networks",
            "One ResNet for two label sets: what do we gain?",
            35,
            1,
            None,
        ),
        Chapter(
            "09",
            "experts_recommendation",
            "Experts for recommendation and tables",
            "Two targets of one user: does one network serve both, and does it need experts?",
            35,
            1,
            None,
        ),
        Chapter(
            "10",
            "rnn_finance",
            "Recurrent networks: several series, several horizons",
            "When do several series, or several questions of one series, share a recurrent network"
            " with profit?",
            40,
            1,
            None,
        ),
        Chapter(
            number="11",
            slug="transformer_multimodal",
            title="Transformers: several tasks, two modalities",
            question="One encoder for text and pictures: what if one of them is missing?",
            read=35,
            cpu=1,
            gpu=None,
        ),
        Chapter(
            "12",
            "fine_tuning",
            "Fine-tuning a network",
            "How much to unfreeze, at which rate?",
            35,
            1,
            None,
        ),
        Chapter(
            number="13",
            slug="parameter_efficient",
            title="Parameter-efficient transfer and merging",
            question="A thousandth of the weights: how much of the gain? And can finished models"
            " be added?",
            read=35,
            cpu=1,
            gpu=None,
        ),
        Chapter(
            number="14",
            slug="distillation",
            title="Distillation and compression",
            question="Can a small model inherit what a large one knows?",
            read=35,
            cpu=1,
            gpu=None,
        ),
        Chapter(
            number="15",
            slug="domain_adaptation",
            title="Domain adaptation and generalisation",
            question="Same labels, other pictures: what can be done without a single label from"
            " the target?",
            read=35,
            cpu=1,
            gpu=None,
        ),
        Chapter(
            number="16",
            slug="transferability",
            title="Choosing and making a source",
            question="Which model should you start from, before you pay for it?",
            read=35,
            cpu=1,
            gpu=None,
        ),
        Chapter(
            "17",
            "meta_learning",
            "Learn the starting point",
            "When does a learned start beat joint training and fine-tuning?",
            40,
            1,
            None,
        ),
        Chapter(
            "18",
            "few_shot",
            "Few-shot classification",
            "Five classes, one example each: what tells them apart?",
            35,
            1,
            None,
        ),
        Chapter(
            "19",
            "continual",
            "Learning in a stream",
            "Tasks arrive one after another: what does a network forget, and what keeps it from"
            " forgetting?",
            40,
            1,
            None,
        ),
        Chapter(
            "20",
            "in_context",
            "Learning in context",
            "Can a network learn a new task while it reads, with no inner loop?",
            35,
            1,
            None,
        ),
        Chapter(
            number="21",
            slug="medicine",
            title="Medicine: few outcomes, many surrogates",
            question="The outcome that counts is known for few, a quick one for all. What now?",
            read=35,
            cpu=1,
            gpu=None,
        ),
        Chapter(
            "22",
            "scale_out",
            "Scale out",
            "What changes when one machine is not enough?",
            40,
            1,
            None,
        ),
        Chapter(
            number="23",
            slug="trust",
            title="Trust",
            question="Does a shared network leak, discriminate, or explain itself?",
            read=40,
            cpu=1,
            gpu=None,
        ),
        Chapter(
            "24",
            "build_and_ship",
            "Build and ship",
            "How does a model become a service that answers, and that says when it should not?",
            40,
            1,
            None,
        ),
    ]
}

LABS = {
    lab.number: lab
    for lab in [
        Lab(
            number="lab_1",
            slug="few_labels",
            title="A handful of labels per task",
            question="Forty small regressions, related in a way that nobody tells you: how much can"
            " they learn from each other?",
            read=90,
            cpu=1,
            gpu=None,
            stars=1,
            rungs=("naive", "sensible", "ours"),
        ),
        Lab(
            number="lab_2",
            slug="beat_the_sum",
            title="Beat the tuned sum",
            question="On which two tasks does a rule that changes the weights beat the best fixed"
            " ones, and why there?",
            read=150,
            cpu=1,
            gpu=None,
            stars=3,
            rungs=("level", "ahead", "far ahead"),
        ),
        Lab(
            number="lab_3",
            slug="fifty_labels",
            title="Fifty labels",
            question="Fifty labelled pictures of an alphabet that you have never seen: what is the"
            " most that can be made of them?",
            read=120,
            cpu=1,
            gpu=None,
            stars=2,
            rungs=("naive", "sensible", "transfer", "ours"),
        ),
        Lab(
            number="lab_4",
            slug="new_alphabet",
            title="Ten letters at a glance",
            question="Three alphabets to practise on, thirty seconds to prepare: how well can you"
            " then name letters of others, from one picture of each?",
            read=120,
            cpu=1,
            gpu=None,
            stars=2,
            rungs=("naive", "episodes", "one classifier", "ours"),
        ),
        Lab(
            number="lab_5",
            slug="small_model",
            title="One small model to ship",
            question="Three questions about a picture, one model of less than a megabyte: how"
            " little is enough?",
            read=120,
            cpu=1,
            gpu=None,
            stars=2,
            rungs=("naive", "sensible", "ours"),
        ),
    ]
}


def find(chapter: str | int) -> Chapter:
    """The chapter, or the lab, with this number.

    Args:
        chapter: ``"01"``, ``"1"`` or ``1``; ``"lab_1"`` for a lab.

    Returns:
        Its entry.

    Raises:
        ValueError: there is none; the message lists those there are.

    Example:
        >>> find(1).slug
        'mtl_objective'
    """
    number = str(chapter).zfill(2)
    if number in LABS:
        return LABS[number]
    if number not in CHAPTERS:
        raise ValueError(
            f"There is no chapter {chapter!r}. The chapters are {', '.join(CHAPTERS)}."
            f" The labs are {', '.join(LABS)}."
        )
    return CHAPTERS[number]
