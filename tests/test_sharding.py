"""The rule table against a golden list, and sharded runs against the run on one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from nkjax import mesh as meshes
from nkjax import sharding, trees
from nkjax.models import attention, sapiens

FSDP_16 = AbstractMesh((1, 16), ("data", "fsdp"))

# 2b pose over 16 chips: shape and, of each axis, the mesh axis that splits it.
GOLDEN_2B = {
    "backbone/blocks/fc1/bias": ((48, 7680), ()),
    "backbone/blocks/fc1/kernel": ((48, 1920, 7680), (None, "fsdp", None)),
    "backbone/blocks/fc2/bias": ((48, 1920), ()),
    "backbone/blocks/fc2/kernel": ((48, 7680, 1920), (None, None, "fsdp")),
    "backbone/blocks/ln1/bias": ((48, 1920), ()),
    "backbone/blocks/ln1/scale": ((48, 1920), ()),
    "backbone/blocks/ln2/bias": ((48, 1920), ()),
    "backbone/blocks/ln2/scale": ((48, 1920), ()),
    "backbone/blocks/proj/bias": ((48, 1920), ()),
    "backbone/blocks/proj/kernel": ((48, 1920, 1920), (None, None, "fsdp")),
    "backbone/blocks/qkv/bias": ((48, 5760), ()),
    "backbone/blocks/qkv/kernel": ((48, 1920, 5760), (None, "fsdp", None)),
    "backbone/norm/bias": ((1920,), ()),
    "backbone/norm/scale": ((1920,), ()),
    "backbone/patch_embed/bias": ((1920,), ()),
    "backbone/patch_embed/kernel": ((768, 1920), (None, "fsdp")),
    "backbone/pos_embed": ((3072, 1920), (None, "fsdp")),
    "head/conv_0/bias": ((768,), ()),
    "head/conv_0/kernel": ((768, 768), ("fsdp", None)),
    "head/conv_1/bias": ((768,), ()),
    "head/conv_1/kernel": ((768, 768), ("fsdp", None)),
    "head/deconv_0/kernel": ((4, 4, 1920, 768), (None, None, "fsdp", None)),
    "head/deconv_1/kernel": ((4, 4, 768, 768), (None, None, "fsdp", None)),
    "head/final/bias": ((17,), ()),
    "head/final/kernel": ((768, 17), ()),
}


def abstract(spec):
    return jax.eval_shape(lambda: sapiens.init(jax.random.key(0), spec))


def test_specs_of_2b_are_the_golden_ones():
    leaves = trees.flatten(abstract(sapiens.make_spec("2b", "pose")))
    found = {
        name: (leaf.shape, sharding.partition_spec(name, leaf.shape, FSDP_16))
        for name, leaf in leaves.items()
    }
    wanted = {name: (shape, padded(axes, shape)) for name, (shape, axes) in GOLDEN_2B.items()}
    assert {name: (shape, padded(spec, shape)) for name, (shape, spec) in found.items()} == wanted


def padded(axes, shape):
    return (*axes, *[None] * (len(shape) - len(axes)))


def test_optimiser_and_ema_are_split_like_their_parameters():
    params = abstract(sapiens.make_spec("0.3b", "pose"))
    state = {"optimizer": jax.eval_shape(optax.adamw(1e-4).init, params), "ema": params}
    specs = {
        name: sharding.partition_spec(name, leaf.shape, FSDP_16)
        for name, leaf in trees.flatten(state).items()
    }
    for name, leaf in trees.flatten(params).items():
        spec = sharding.partition_spec(name, leaf.shape, FSDP_16)
        copies = [other for other in specs if other.endswith("/" + name)]
        assert len(copies) == 3 and all(specs[copy] == spec for copy in copies)


@pytest.mark.parametrize("size", ["0.3b", "0.6b", "1b", "2b"])
@pytest.mark.parametrize("task", sapiens.TASKS)
def test_every_leaf_divides_and_little_is_repeated(size, task):
    leaves = trees.flatten(abstract(sapiens.make_spec(size, task)))
    whole, per_chip = 0, 0
    for name, leaf in leaves.items():
        spec = padded(sharding.partition_spec(name, leaf.shape, FSDP_16), leaf.shape)
        parts = [16 if axis == "fsdp" else 1 for axis in spec]
        assert all(n % part == 0 for n, part in zip(leaf.shape, parts, strict=True)), name
        assert "/blocks/" not in name or parts[0] == 1, f"{name}: scan slices the layer axis"
        whole += leaf.size
        per_chip += leaf.size // int(np.prod(parts))
    # Biases, norms and the read-out stay whole: about a thousandth of the parameters.
    assert per_chip < 1.05 * whole / 16


def test_an_axis_that_does_not_divide_stays_whole():
    seven = AbstractMesh((1, 7), ("data", "fsdp"))
    spec = sharding.partition_spec("backbone/blocks/fc1/kernel", (48, 1920, 7680), seven)
    assert padded(spec, (0, 0, 0)) == (None, None, None)
    # A rule longer than the leaf: nothing to split.
    assert sharding.partition_spec("a/qkv/kernel", (16,), FSDP_16) == PartitionSpec()


def test_a_mesh_that_does_not_multiply_is_refused():
    with pytest.raises(ValueError, match="mesh 3 x 2 wants 6 devices, there are 8"):
        meshes.make_mesh(3, 2, jax.devices() * (8 // len(jax.devices())))


SPEC = sapiens.make_spec("tiny", "pose", image_size=(64, 48))


def loss_and_gradient(params, images_bhwc, targets_bhwk):
    def loss_of(params):
        maps_bhwk = sapiens.apply(params, SPEC, images_bhwc, attention="chunked")["pose"]
        return jnp.mean(jnp.square(maps_bhwk - targets_bhwk))

    return jax.value_and_grad(loss_of)(params)


@functools.cache
def tiny_inputs():
    keys = jax.random.split(jax.random.key(1), 4)
    params = sapiens.init(keys[0], SPEC)
    # Larger than at the start of training, so that no gradient is tiny.
    params["head"] = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(keys[3], x.shape), params["head"]
    )
    images = jax.random.normal(keys[1], (8, 64, 48, 3))
    return jax.device_get((params, images, jax.random.normal(keys[2], (8, 16, 12, 17))))


@functools.cache
def on_mesh(data, fsdp):
    params, images, targets = tiny_inputs()
    mesh = meshes.make_mesh(data, fsdp, jax.devices()[: data * fsdp])
    shardings = sharding.shardings(params, mesh)
    over_chips = sharding.batch_sharding(mesh)
    run = jax.jit(
        loss_and_gradient,
        in_shardings=(shardings, over_chips, over_chips),
        out_shardings=(None, shardings),
    )
    with jax.set_mesh(mesh):
        loss, gradient = run(
            jax.device_put(params, shardings),
            jax.device_put(images, over_chips),
            jax.device_put(targets, over_chips),
        )
    return float(loss), gradient


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, as tests/conftest.py makes")
@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (1, 8), (2, 4)])
def test_loss_and_gradient_do_not_depend_on_the_mesh(data, fsdp):
    wanted_loss, wanted = on_mesh(1, 1)
    loss, gradient = on_mesh(data, fsdp)
    np.testing.assert_allclose(loss, wanted_loss, rtol=5e-6)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    compared = 0
    for name, leaf in trees.flatten(wanted).items():
        scale = float(jnp.abs(leaf).max())
        if scale < 1e-6 * largest:  # the instance norm cancels a bias before it: rounding noise
            assert name in ("head/conv_0/bias", "head/conv_1/bias")
            continue
        other = jax.device_get(trees.flatten(gradient)[name])
        np.testing.assert_allclose(other, leaf, rtol=0, atol=5e-6 * scale, err_msg=name)
        compared += 1
    assert compared >= len(GOLDEN_2B) - 2
    kernel = gradient["backbone"]["blocks"]["fc1"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (3, 64 // fsdp, 256)


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices, as tests/conftest.py makes")
@pytest.mark.parametrize(("dim", "length"), [(64, 128), (80, 200), (60, 193)])
def test_splash_inside_shard_map_equals_chunked(dim, length):
    keys = jax.random.split(jax.random.key(2), 4)
    shape = (8, length, 2, dim)
    q, k, v, weights = (jax.random.normal(key, shape) for key in keys)

    def value(attend, qkv):
        return jnp.sum(attend(*qkv) * weights)

    kernel = functools.partial(attention.splash, interpret=True)
    splash = functools.partial(attention.over_batch, kernel)
    out = jax.jit(attention.chunked)(q, k, v)
    gradient = jax.jit(jax.grad(functools.partial(value, attention.chunked)))((q, k, v))
    mesh = meshes.make_mesh(2, 4)
    over_chips = sharding.batch_sharding(mesh)
    with jax.set_mesh(mesh):
        qkv = jax.device_put((q, k, v), over_chips)
        run = jax.jit(lambda qkv: (splash(*qkv), jax.grad(functools.partial(value, splash))(qkv)))
        splash_out, splash_gradient = run(qkv)
    assert splash_out.sharding.is_equivalent_to(over_chips, 4)
    np.testing.assert_allclose(splash_out, out, rtol=0, atol=1e-5)
    for name, one, other in zip("qkv", splash_gradient, gradient, strict=True):
        scale = float(jnp.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * scale, err_msg=name)


def test_attention_inside_the_users_own_shard_map():
    mesh = meshes.make_mesh(1, len(jax.devices()))
    q = jax.random.normal(jax.random.key(0), (len(jax.devices()) ** 2, 20, 2, 8))

    def attend(q):
        return attention.attend(q, q, q, backend="chunked")

    split = jax.sharding.PartitionSpec(("data", "fsdp"))
    with jax.set_mesh(mesh):
        out = jax.jit(jax.shard_map(attend, in_specs=split, out_specs=split, check_vma=False))(q)
    np.testing.assert_allclose(out, attend(q), rtol=0, atol=1e-6)
