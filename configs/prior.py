"""The developmental prior: a denoiser of toddler skeletons, learnt from labelled ones alone.

    python scripts/fit_prior.py --config=configs/prior.py:tiny --data=DATA --out=PRIOR

'shuffled' is the negative control: each joint of a skeleton comes from another person, so that
what it learns of bones is nothing. Recipe: notes method 2.2, 8.
"""

from ml_collections import ConfigDict

from nkjax.config import BadConfig, to_config_dict
from nkjax.prior_config import PriorConfig

WORDS = ("tiny", "shuffled")


def get_config(argument: str = "") -> ConfigDict:
    """Return the fit for '', 'tiny', 'shuffled' or 'tiny,shuffled'. Raises BadConfig for others."""
    words = [word.strip() for word in argument.split(",") if word.strip()]
    if unknown := [word for word in words if word not in WORDS]:
        raise BadConfig(
            f"{unknown[0]!r} is no word of the prior: use tiny, shuffled, both with a comma "
            "between, or none"
        )
    config = to_config_dict(PriorConfig())
    config.width, config.depth, config.heads = 128, 4, 4
    config.steps, config.batch = 40_000, 512
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 1e-4
    config.ema = 0.999
    config.dropout = 0.1
    config.near = 0.5
    config.control = "shuffled" if "shuffled" in words else ""

    if "tiny" in words:  # for CPUs, tests and the simulated world: minutes
        config.width, config.depth = 64, 3
        config.steps, config.batch = 5_000, 128
        config.optimizer.learning_rate = 2e-3
        config.optimizer.warmup = 100
        config.dropout = 0.0  # so small a network does not learn people by heart, and learns faster
        config.ema = 0.995  # of short runs (notes method 4.4)
    return config
