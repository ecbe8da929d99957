"""What a step of training costs by formula, and what a TPU pod would take for it: a prediction."""

import dataclasses
from collections.abc import Sequence

from nkjax.collectives import Collective
from nkjax.models.sapiens import Spec

# What large products reach of a chip's peak in training, by experience: no measurement of ours.
EFFICIENCY = 0.5


@dataclasses.dataclass(frozen=True)
class Chip:
    """Describe a TPU chip: GiB of HBM, bf16 TFLOP/s, and GB/s that it sends over all its links."""

    hbm_gib: int
    tflops: float
    links_gb: float


# From the vendor's system architecture pages (read November 2026). They give links as both
# directions together: v4 600, v5e 400 (1600 Gbit/s each way), v5p 1200, v6e 800 GB/s a chip.
CHIPS = {
    "v4": Chip(32, 275, 300),
    "v5e": Chip(16, 197, 200),
    "v5p": Chip(95, 459, 600),
    "v6e": Chip(32, 918, 400),
}


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Seconds of one step on one chip, from formulas alone, and the share that sending takes.

    compute: FLOPs at EFFICIENCY of the peak; sending: bytes over all links; sending_slow: over half
    of them, as where a ring runs along one side of a 2D torus, or a slice has no wrap-around.
    hidden: share of the step where sending runs beside computing over all links; exposed: where
    the one waits for the other, over half of the links. What each hop waits is not counted.
    """

    compute: float
    sending: float
    sending_slow: float

    @property
    def hidden(self) -> float:
        """Return the smallest share, 0 ... 1: what of sending outlasts computing."""
        return max(0.0, self.sending - self.compute) / max(self.sending, self.compute)

    @property
    def exposed(self) -> float:
        """Return the largest share, 0 ... 1: sending and computing take turns."""
        return self.sending_slow / (self.sending_slow + self.compute)


def predict(flops: float, collectives: Sequence[Collective], chip: Chip) -> Prediction:
    """Predict a step of so many FLOPs and such collectives on each chip."""
    sending = sum(one.sent for one in collectives) / (chip.links_gb * 1e9)
    return Prediction(flops / (EFFICIENCY * chip.tflops * 1e12), sending, 2 * sending)


def training_flops(spec: Spec, remat: str = "none") -> float:
    """Count FLOPs of one picture of a step: forward, twice that backward, once more recomputed.

    Recomputed are the blocks with remat 'full'; 'light' keeps its products. Not counted: what a
    fused attention computes again, the deconvolutions of the head, views, optimiser.
    """
    again = _block_flops(spec) if remat == "full" else 0.0
    return 3 * forward_flops(spec) + again


def forward_flops(spec: Spec) -> float:
    """Count FLOPs (2 x multiply-adds) of one picture: products of blocks, patches and head."""
    n, d = spec.backbone.grid[0] * spec.backbone.grid[1], spec.backbone.width
    total = _block_flops(spec) + 2 * n * 768 * d
    pixels, channels = n, d
    for width in spec.head.deconvs:
        pixels *= 4
        total += 2 * pixels * 4 * channels * width  # 4 of the 16 taps meet an output pixel
        channels = width
    for width in (*spec.head.convs, spec.head.outputs):
        total += 2 * pixels * channels * width
        channels = width
    return total


def _block_flops(spec: Spec) -> float:
    n, d = spec.backbone.grid[0] * spec.backbone.grid[1], spec.backbone.width
    return spec.backbone.depth * (24 * n * d**2 + 4 * n**2 * d)
