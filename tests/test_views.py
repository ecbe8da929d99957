"""What the device does to pictures, against the reference's own arrays."""

from pathlib import Path

import numpy as np

from nkjax import views

GOLDEN = np.load(Path(__file__).parent / "data" / "fixtures" / "tiny_pose.npz")


def test_normalise_is_the_reference_s():
    rgb = GOLDEN["image_bgr_u8"][:1, :32, :32, ::-1]
    wanted = GOLDEN["input_sample0_crop32"].transpose(0, 2, 3, 1)
    got = views.normalise(rgb)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-5)
