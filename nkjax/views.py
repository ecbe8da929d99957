"""What the device does to a batch of pictures."""

import jax.numpy as jnp
import numpy as np

# ImageNet's, in grey levels of RGB. The reference's "lite" demos use other numbers.
MEAN_111C = np.array([[[[123.675, 116.28, 103.53]]]], np.float32)
STD_111C = np.array([[[[58.395, 57.12, 57.375]]]], np.float32)


def normalise(images_u8_bhwc):
    """Turn RGB grey levels 0 ... 255 into the float32 input of the networks, same shape.

    Source: notes sapiens A4.
    """
    return (jnp.asarray(images_u8_bhwc).astype(jnp.float32) - MEAN_111C) / STD_111C
