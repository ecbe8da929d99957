"""Adults before toddlers: stand-ins of the Sapiens networks, trained on simulated adults.

    python scripts/train.py --config=configs/pretrain_adult.py:tiny,depth --workdir=RUN \
        --config.data=ADULTS

ADULTS is a packed folder for pose, and a folder of simulate.py --domain adult for the dense tasks,
whose labels are the simulation's own truth. The argument names a size, a task, or both.
Recipes: notes sapiens A7; loss of each task: A6.
"""

from ml_collections import ConfigDict

from nkjax.config import SIZES, TASKS, BadConfig, Config, to_config_dict


def get_config(argument: str = "") -> ConfigDict:
    """Return the run for 'tiny,depth', 'depth' (of size 0.6b), 'tiny' (pose) or '' (0.6b, pose).

    Raises BadConfig for a word that is neither a size nor a task.
    """
    size, task = _size_and_task(argument)
    config = to_config_dict(Config(size=size))
    config.task = task

    config.batch = 64
    config.steps = 20_000
    config.image_hw = (1024, 768)
    config.remat = "full" if size in ("1b", "2b") else "light"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.layer_decay = 0.85
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip = 1.0

    if task == "pose":
        config.augment = "sapiens"
        config.heatmaps.sigma = 6.0  # px of heatmaps of 256 x 192
        config.optimizer.schedule = "steps"
        config.optimizer.milestones = (170 / 210, 200 / 210)
        config.optimizer.warmup = 500
    else:
        config.augment = "dense"
        config.optimizer.schedule = "polynomial"  # of power 1, to 0
        config.optimizer.warmup = 400
        config.evaluation.best = "loss"

    if size == "tiny":
        config.image_hw = (256, 192)
        config.heatmaps.sigma = 1.5  # the same share of the map's height
        config.compute = "float32"
        config.remat = "none"
        config.batch = 32
        config.steps = 4_000
        # From random numbers every layer has as far to go; and an average as short as the run.
        config.optimizer.layer_decay = 1.0
        config.optimizer.learning_rate = 1e-3
        config.ema = 0.995
        config.evaluation.every = config.save_every = 500
        config.threads = 4
    return config


def _size_and_task(argument: str) -> tuple[str, str]:
    words = [word.strip() for word in argument.split(",") if word.strip()]
    sizes = [word for word in words if word in SIZES]
    tasks = [word for word in words if word in TASKS]
    unknown = [word for word in words if word not in SIZES + TASKS]
    if unknown or len(sizes) > 1 or len(tasks) > 1:
        raise BadConfig(
            f"{argument!r} is not a size ({', '.join(SIZES)}) and a task ({', '.join(TASKS)}) "
            "with a comma between, nor one of them"
        )
    return (sizes or ["0.6b"])[0], (tasks or ["pose"])[0]
