"""What the prior is used for: denoise in one step, refine in k, complete what is hidden, judge.

Poses are in data units (`coordinates.normalise`); all functions are pure, random by a key. S counts
draws or samples, on a leading axis. Source: notes method 2.3, 2.5, 2.7; SDEdit (arXiv 2108.01073),
DDIM (arXiv 2010.02502).
"""

import jax
import jax.numpy as jnp
import numpy as np

from nkjax.prior import diffusion
from nkjax.prior.diffusion import ALPHA, SIGMA, Given, PartPrior

# Where completion starts: from the notes' 700, where poses still are 0.45 of themselves, samples
# would be drawn to the root.
FROM_NOISE = diffusion.STEPS


def antithetic(key, draws: int, shape) -> jax.Array:
    """Return (draws, *shape) normal noise in pairs of opposite sign; draws must be even."""
    half = jax.random.normal(key, (draws // 2, *shape))
    return jnp.concatenate([half, -half])


def denoised(prior: PartPrior, u_bj2, given: Given, ratios_s, noise_sbj2):
    """Return S one-step estimates (S, B, J, 2) of poses that noise was added to.

    ratios_s: how much, sigma / alpha in data units, numbers known beforehand or traced (S,).
    """
    log_ratios = jnp.log(jnp.asarray(ratios_s, jnp.float32))
    table = jnp.asarray(diffusion.LOG_RATIO[1:])
    steps = 1 + jnp.abs(table[None] - log_ratios[:, None]).argmin(1)

    def one(draw):
        step, noise = draw
        t_b = jnp.broadcast_to(step, u_bj2.shape[:1])
        return diffusion.clean(prior, diffusion.noised(u_bj2, t_b, noise), t_b, given)

    return jax.lax.map(one, (steps, noise_sbj2))


def residual(prior: PartPrior, u_bj2, given: Given, ratios, noise_sbj2):
    """Return how far denoising moves a pose, (B, len(ratios)): mean square / ratio^2 per number.

    Over the S draws and the coordinates of valid joints; the larger, the less plausible, and minus
    half of it a surrogate of the log density.
    """
    count = jnp.maximum(2.0 * given.valid_bj.sum(1), 1.0)

    def at(ratio):
        estimates = denoised(prior, u_bj2, given, [ratio] * len(noise_sbj2), noise_sbj2)
        moved = jnp.where(given.valid_bj[None, ..., None], estimates - u_bj2[None], 0.0)
        return jnp.square(moved).sum((2, 3)).mean(0) / (count * ratio**2)

    return jnp.stack([at(ratio) for ratio in ratios], 1)


def log_density(prior: PartPrior, u_bj2, given: Given, noise_sbj2, ratios=(0.05, 0.1, 0.2)):
    """Return a surrogate of the log density of poses (B,), per coordinate and up to a constant."""
    return -0.5 * residual(prior, u_bj2, given, ratios, noise_sbj2).mean(1)


def ddim(prior: PartPrior, x_bj2, start: int, steps: int, given: Given):
    """Walk from noised poses at step `start` to clean ones in so many steps, without new noise.

    Observed joints are put back into every estimate of the clean pose.
    """
    ladder = np.round(np.linspace(start, 0, steps + 1)).astype(np.int32)
    observed = (given.valid_bj & given.observed_bj)[..., None]
    u = x_bj2
    for now, then in zip(ladder[:-1], ladder[1:], strict=True):
        u = diffusion.clean(prior, x_bj2, jnp.asarray(now), given)
        u = jnp.where(observed, given.values_bj2, u)
        noise = (x_bj2 - ALPHA[now] * u) / SIGMA[now]
        x_bj2 = ALPHA[then] * u + SIGMA[then] * noise
    return jnp.where(given.valid_bj[..., None], u, 0.0)


def samples(key, prior: PartPrior, given: Given, count: int, steps: int):
    """Draw so many poses (S, B, J, 2) that agree with what is observed, from nothing but noise."""
    shape = (*given.valid_bj.shape, 2)

    def one(sample_key):
        return ddim(prior, jax.random.normal(sample_key, shape), FROM_NOISE, steps, given)

    return jax.lax.map(one, jax.random.split(key, count))


def refine(key, prior: PartPrior, u_bj2, given: Given, ratio=0.4, steps: int = 5, count: int = 8):
    """Noise poses and walk back, so many times (S, B, J, 2): observed joints stay where they are.

    What is not observed is found anew near where it was: the larger the ratio, the farther away.
    """
    start = diffusion.level(ratio)

    def one(sample_key):
        noise = jax.random.normal(sample_key, u_bj2.shape)
        t_b = jnp.full(u_bj2.shape[:1], start)
        return ddim(prior, diffusion.noised(u_bj2, t_b, noise), start, steps, given)

    return jax.lax.map(one, jax.random.split(key, count))


def choose(samples_sbj2, energy_sb):
    """Return for each pose its sample of least energy (B, J, 2): never a mean of samples."""
    best = jnp.argmin(energy_sb, 0)
    return jnp.take_along_axis(samples_sbj2, best[None, :, None, None], 0)[0]


def complete(key, prior: PartPrior, given: Given, count: int = 32, steps: int = 5):
    """Tell where joints that are not observed most likely are: (chosen_bj2, spread_bj).

    chosen: the sample nearest to the others, so the more there are, the nearer to their median;
    observed joints as given. spread: RMS distance of the samples of a joint from their middle, data
    units; 0 for what is observed.
    """
    drawn = samples(key, prior, given, count, steps)
    away = jnp.sqrt(jnp.square(drawn[:, None] - drawn[None]).sum(-1))
    chosen = choose(drawn, away.mean((1, 3)))
    spread = jnp.sqrt(jnp.square(drawn - drawn.mean(0)[None]).sum(-1).mean(0))
    return chosen, spread
