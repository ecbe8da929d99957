"""Stage 0: the pose network learns toddlers from labelled pictures alone, all of it fine-tuned.

    python scripts/train.py --config=configs/stage0_warmup.py:0.6b --workdir=RUN \
        --config.data=DATA --config.init=WEIGHTS

The recipe is that of the Sapiens pose networks (notes method 4.5, sapiens A7).
"""

from ml_collections import ConfigDict

from nkjax.config import Config, to_config_dict

MAPS_HEIGHT, SIGMA = 256, 6.0  # of the recipe: px of heatmaps of 256 x 192


def get_config(size: str = "0.6b") -> ConfigDict:
    """Return the run for a size: tiny, 0.3b, 0.6b, 1b, 2b. Raises BadConfig for another."""
    config = to_config_dict(Config(task="pose", size=size))

    # 5e-4 is the rate for 512 people a step. With another batch B set both: AdamW's rate goes with
    # the square root, 5e-4 x sqrt(B / 512). Where 512 do not fit the memory, keep batch and rate
    # and raise optimizer.accumulate: the same step, in parts. `plan.py` says what fits.
    config.batch = 512
    config.optimizer.learning_rate = 5e-4

    # 200 times through 20,000 people; with fewer, fewer steps.
    config.steps = 8_000
    config.optimizer.warmup = 500
    config.optimizer.schedule = "steps"
    config.optimizer.milestones = (170 / 210, 200 / 210)
    config.optimizer.layer_decay = 0.85
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip = 1.0

    config.image_hw = (1024, 768)
    config.heatmaps.sigma = SIGMA
    config.augment = "sapiens"
    config.ema = 0.999
    # The backward pass of the two largest computes each block twice rather than keep it.
    config.remat = "full" if size in ("1b", "2b") else "light"
    config.optimizer.accumulate = 8 if size in ("1b", "2b") else 1

    if size == "tiny":  # for CPUs, tests and the simulated world: minutes, not days
        config.image_hw = (256, 192)
        config.heatmaps.sigma = SIGMA * (256 / 4) / MAPS_HEIGHT
        config.compute = "float32"
        config.remat = "none"
        config.batch = 32
        config.steps = 2_000
        config.optimizer.learning_rate = 1e-3
        config.optimizer.warmup = 100
        config.ema = 0.995  # of short runs (notes method 4.4)
        config.evaluation.every = config.save_every = 500
        config.threads = 4
    return config
