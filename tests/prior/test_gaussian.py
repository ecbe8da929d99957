"""The Gaussian under the network, against formulas of conditional Gaussians in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nkjax.prior import gaussian
from nkjax.prior.gaussian import Gaussian

J, D, B = 5, 10, 6
posterior = jax.jit(gaussian.posterior)


def made(correlation=None, seed=0):
    """Return mean and covariance in float64: of random directions, or all joints alike."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(D, D))
    random = factor @ factor.T / D + 0.05 * np.eye(D)
    alike = None if correlation is None else np.full((D, D), correlation)
    return rng.normal(size=D), random if alike is None else alike + (1 - correlation) * np.eye(D)


def as_gaussian(mean_d, covariance_dd):
    precision = np.linalg.inv(covariance_dd)
    return Gaussian(jnp.asarray(mean_d, jnp.float32), jnp.asarray(precision, jnp.float32))


def drawn(mean_d, covariance_dd, ratios, valid=1.0, observed=0.0, seed=0):
    """Draw poses, noised ones of each ratio, and masks: the arguments of `posterior`."""
    rng = np.random.default_rng(seed)
    ratios = np.asarray(ratios, np.float64)
    clean = rng.multivariate_normal(mean_d, covariance_dd, len(ratios)).reshape(-1, J, 2)
    alpha = 1 / np.sqrt(1 + ratios**2)
    noise = (alpha * ratios)[:, None, None] * rng.normal(size=clean.shape)
    x = alpha[:, None, None] * clean + noise
    valid, observed = (rng.random(clean.shape[:2]) < share for share in (valid, observed))
    return x, alpha, alpha * ratios, valid, clean, observed


def conditional(mean_d, covariance_dd, x, alpha, sigma, valid, values, observed):
    """Return mean and standard deviation by the textbook: K = C H' (H C H' + R)^-1, float64."""
    means, variances = [], []
    for b in range(len(x)):
        told = np.repeat(valid[b] & observed[b], 2)
        seen = np.flatnonzero(np.repeat(valid[b], 2))
        measured = np.where(told, values[b].ravel(), x[b].ravel() / alpha[b])[seen]
        error = np.where(told, 1 / gaussian.KNOWN, (sigma[b] / alpha[b]) ** 2)[seen]
        whole = covariance_dd[np.ix_(seen, seen)] + np.diag(error)
        gain = np.linalg.solve(whole, covariance_dd[seen]).T
        means.append(mean_d + gain @ (measured - mean_d[seen]))
        variances.append(np.diag(covariance_dd - gain @ covariance_dd[seen]))
    shape = (len(x), J, 2)
    return np.array(means).reshape(shape), np.sqrt(np.array(variances)).reshape(shape)


@pytest.mark.parametrize(("valid", "observed"), [(1.0, 0.0), (1.0, 0.5), (0.6, 0.0), (0.6, 0.5)])
def test_the_posterior_is_the_conditional_gaussian(valid, observed):
    """Noise only; observed joints; invalid ones, which are inferred; all of it together."""
    mean, covariance = made()
    inputs = drawn(mean, covariance, [0.05, 0.1, 0.4, 1.0, 5.0, 100.0], valid, observed)
    assert (valid < 1) == (not inputs[3].all()) and (observed > 0) == bool(inputs[5].any())
    found = posterior(as_gaussian(mean, covariance), *inputs)
    for ours, textbook in zip(found, conditional(mean, covariance, *inputs), strict=True):
        assert ours.dtype == jnp.float32
        assert np.abs(ours - textbook).max() < 2e-4


def test_hidden_joints_follow_those_that_are_observed():
    """By hand: x2 given x1 = 0.8 x1 and variance 0.36; at ratio 200 noise tells nothing."""
    covariance = np.eye(D)
    covariance[0, 2] = covariance[2, 0] = 0.8  # the x of joints 0 and 1
    observed = np.zeros((B, J), bool)
    observed[:, 0] = True
    values = np.full((B, J, 2), 9.0)
    values[:, 0] = np.linspace(-2, 2, B)[:, None]
    sigma = np.full(B, 0.9999875)
    x = np.random.default_rng(0).normal(size=(B, J, 2))
    mean, spread = posterior(as_gaussian(np.zeros(D), covariance), x, sigma / 200, sigma,
                             np.ones((B, J), bool), values, observed)  # fmt: skip
    assert np.abs(mean[:, 0] - values[:, 0]).max() < 1e-3
    assert np.abs(mean[:, 1, 0] - 0.8 * values[:, 0, 0]).max() < 0.02
    assert np.abs(np.asarray(mean)[:, 1:, 1]).max() < 0.03
    assert np.abs(spread[:, 1, 0] - 0.6).max() < 1e-3
    assert np.abs(np.asarray(spread)[:, 2:] - 1).max() < 1e-3
    assert 0 < np.asarray(spread)[:, 0].min() <= np.asarray(spread)[:, 0].max() < 0.011


@pytest.mark.parametrize("correlation", [0.9, 0.999])
def test_joints_that_nearly_are_one_keep_their_digits(correlation):
    ratios = [0.0126, 0.05, 0.4, 3.0, 30.0, 200.0]  # of step 1 to the last
    mean, covariance = made(correlation)
    for observed in (0.0, 0.5):
        inputs = drawn(mean, covariance, ratios, 0.8, observed)
        found, spread = map(np.asarray, posterior(as_gaussian(mean, covariance), *inputs))
        wanted, wanted_spread = conditional(mean, covariance, *inputs)
        assert np.isfinite(found).all() and (spread > 0).all()
        assert (np.abs(found - wanted) / wanted_spread).max() < 0.05
        assert np.abs(spread / wanted_spread - 1).max() < 0.05


def test_the_inverse_is_that_of_lapack():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(B, D, 3 * D))
    a = factor @ factor.transpose(0, 2, 1) / D
    found = np.asarray(gaussian._inverse(jnp.asarray(a, jnp.float32)))
    assert np.allclose(found, np.linalg.inv(a), rtol=1e-4, atol=1e-5)


def test_what_is_not_valid_changes_no_bit():
    mean, covariance = made()
    x, alpha, sigma, valid, values, observed = drawn(mean, covariance, [0.1] * B, 0.6, 0.5)
    there = valid[..., None]
    assert not valid.all()

    def outputs(place):
        inputs = (np.where(there, array, place) for array in (x, values))
        moved_x, moved_values = (jnp.asarray(array, jnp.float32) for array in inputs)
        weights = jnp.arange(1.0, 1 + B * D).reshape(B, J, 2)

        def loss(x):
            of = as_gaussian(mean, covariance), x, alpha, sigma, valid, moved_values, observed
            return sum((weights * each).sum() for each in posterior(*of))

        of = as_gaussian(mean, covariance), moved_x, alpha, sigma, valid, moved_values, observed
        return [*posterior(*of), jax.grad(loss)(moved_x)]

    for near, far, nowhere in zip(outputs(0.0), outputs(1e3), outputs(np.nan), strict=True):
        assert np.isfinite(near).all()
        assert (np.asarray(near) == np.asarray(far)).all()
        assert (np.asarray(near) == np.asarray(nowhere)).all()
    gradient = np.asarray(nowhere)  # the last of the outputs
    silent = ~valid | observed
    assert (gradient[silent] == 0).all() and (gradient[~silent] != 0).all()


def test_what_observed_joints_were_noised_to_is_not_read():
    mean, covariance = made()
    x, alpha, sigma, valid, values, observed = drawn(mean, covariance, [0.1] * B, 1.0, 0.5)
    of = as_gaussian(mean, covariance)
    both = (
        posterior(of, np.where(observed[..., None], place, x), alpha, sigma, valid,
                  np.where(observed[..., None], values, place), observed)
        for place in (0.0, np.nan)
    )  # fmt: skip
    assert observed.any()
    for near, nowhere in zip(*both, strict=True):
        assert (np.asarray(near) == np.asarray(nowhere)).all()


def fitted(u, valid):
    """Return mean and covariance of a fit, float64."""
    found = gaussian.fit(u, valid)
    assert found.mean_d.dtype == found.precision_dd.dtype == np.float32
    return found.mean_d, np.linalg.inv(np.float64(found.precision_dd))


def test_many_people_are_fitted_as_they_are():
    mean, covariance = made()
    u = np.random.default_rng(0).multivariate_normal(mean, covariance, 4000).reshape(-1, J, 2)
    found_mean, found = fitted(u, np.ones((4000, J), bool))
    flat = u.reshape(4000, D)
    assert np.allclose(found_mean, flat.mean(0), atol=1e-5)
    share = D / (D + 4000)
    wanted = np.cov(flat.T, bias=True)
    wanted = np.where(np.eye(D) > 0, wanted, (1 - share) * wanted)
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_missing_joints_are_left_out_of_every_pair():
    """By hand, of people who show both joints; what stands where nothing is valid is not read."""
    rng = np.random.default_rng(0)
    mean, covariance = made()
    u = rng.multivariate_normal(mean, covariance, 4000).reshape(-1, J, 2)
    valid = rng.random((4000, J)) < 0.7
    found_mean, found = fitted(np.where(valid[..., None], u, np.nan), valid)
    columns = [u[valid[:, j // 2], j // 2, j % 2] for j in range(D)]
    means = np.array([column.mean() for column in columns])
    assert np.allclose(found_mean, means, atol=1e-5)
    both = valid[:, 0] & valid[:, 3]
    product = ((u[both, 0, 1] - means[1]) * (u[both, 3, 0] - means[6])).mean()
    assert np.isclose(found[1, 6], product * 4000 / (4000 + D), rtol=1e-3, atol=1e-4)
    assert np.isclose(found[1, 1], columns[1].var(), rtol=1e-3)


def test_few_people_give_a_gaussian_all_the_same():
    """Three people, ten numbers, a joint that nobody shows: positive variances, and finite."""
    rng = np.random.default_rng(0)
    u, valid = rng.normal(size=(3, J, 2)), np.ones((3, J), bool)
    valid[0, 1] = False
    valid[:, 4] = False
    for people in (u, u[:0]):
        found = gaussian.fit(people, valid[: len(people)])
        eigenvalues = np.linalg.eigvalsh(np.float64(found.precision_dd))
        assert 0 < eigenvalues[0] and eigenvalues[-1] < 1.01 / gaussian.LEAST_VARIANCE
        assert np.isfinite(found.mean_d).all()
        # Who is never shown may be anywhere, rather than for certain at the root.
        assert np.allclose(np.linalg.inv(np.float64(found.precision_dd))[-2:, -2:], np.eye(2))
    # One person is no evidence that two joints move together.
    alone = np.linalg.inv(np.float64(gaussian.fit(u[1:2], valid[1:2]).precision_dd))
    assert np.abs(alone - np.diag(np.diag(alone))).max() < 1e-6


def test_pairs_that_contradict_each_other_give_a_gaussian():
    """Of three joints each pair is shown by other people: two pairs agree, the third is opposed."""
    u, valid = np.zeros((3000, J, 2)), np.zeros((3000, J), bool)
    u[:] = np.random.default_rng(0).normal(size=(3000, 1, 1))
    for number, pair in enumerate(([0, 1], [1, 2], [0, 2])):
        valid[number::3, pair] = True
    u[2::3, 2] *= -1
    precise = np.linalg.eigvalsh(np.float64(gaussian.fit(u, valid).precision_dd))
    # No direction is known better than labels are: to 0.01.
    assert precise[0] > 0 and np.isclose(precise[-1], 0.01**-2, rtol=1e-3)


def test_the_order_of_people_does_not_count():
    rng = np.random.default_rng(0)
    u, valid = rng.normal(size=(200, J, 2)), rng.random((200, J)) < 0.8
    order = rng.permutation(200)
    shuffled = gaussian.fit(u[order], valid[order])
    for one, other in zip(gaussian.fit(u, valid), shuffled, strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=1e-6)
