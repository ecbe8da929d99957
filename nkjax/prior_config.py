"""The fit of a developmental prior as typed, frozen data: every setting with its default.

As `nkjax/config.py`, of which sections, rules and reading are; in flows a file of configs/.
"""

import dataclasses
from typing import ClassVar

from nkjax import config as configs
from nkjax import typed
from nkjax.config import Mesh, Optimizer

CONTROLS = ("", "shuffled")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """When the people that calibrate are looked at, and how many of them at a time."""

    every: int = 1000
    batch: int = 512


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """A fit of the developmental prior (notes method 2.2).

    data: packed folder. width, depth, heads: of the denoiser of every part. batch: bodies of a
    step, and as many hands. ema: decay of the averaged parameters, which are what is kept. near:
    share of draws at low noise. dropout: of the network; condition_drop, age_drop: how often all
    observed joints, or the age, are hidden. calibration: share of the subjects of train that are
    kept back to calibrate. control: 'shuffled' learns skeletons whose joints come from different
    people, which must be of no use. The rest as in `config.Config`.
    """

    EXAMPLE: ClassVar[str] = "configs/prior.py:tiny"

    data: str = ""
    width: int = 128
    depth: int = 4
    heads: int = 4
    steps: int = 40000
    batch: int = 512
    seed: int = 0
    ema: float = 0.999
    near: float = 0.5
    dropout: float = 0.1
    condition_drop: float = 0.1
    age_drop: float = 0.2
    calibration: float = 0.1
    control: str = ""
    mesh: Mesh = Mesh()
    optimizer: Optimizer = Optimizer(
        learning_rate=1e-3, weight_decay=1e-4, layer_decay=1.0, schedule="cosine", warmup=500
    )
    evaluation: Evaluation = Evaluation()
    save_every: int = 1000
    keep: int = 2
    log_every: int = 50
    abort_after: int = 10
    profile: tuple[int, int] = (0, 0)

    def __post_init__(self):
        configs.check(self)

    @staticmethod
    def rules() -> typed.Rules:
        """Return what each of its values must keep."""
        return _RULES

    def relations(self) -> list[tuple[bool, str]]:
        """Return whether values that are good one by one break with each other, and the words."""
        return [
            *configs.shared_relations(self),
            (self.width % self.heads,
             f"width is {self.width}: must be a multiple of heads, {self.heads}"),
            (self.optimizer.layer_decay != 1,
             f"optimizer.layer_decay is {self.optimizer.layer_decay}: must be 1 for a prior"),
        ]  # fmt: skip


_RULES = typed.Rules(
    {"optimizer.schedule": configs.SCHEDULES, "control": CONTROLS},
    (
        *configs.SHARED_RULES,
        ("width depth heads", "must be at least 1", lambda x: x >= 1),
        ("near condition_drop age_drop", "must be from 0 to 1", lambda x: 0 <= x <= 1),
        ("dropout", "must be at least 0 and below 1", lambda x: 0 <= x < 1),
        ("calibration", "must be above 0 and at most 0.5", lambda x: 0 < x <= 0.5),
    ),
)  # fmt: skip
