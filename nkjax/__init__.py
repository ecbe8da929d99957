"""Sapiens pose estimation of toddlers in JAX.

Arrays carry their axes in their name, one letter an axis: `images_bhwc`, `maps_bhwk`, `points_bk2`,
`x_bnd`, `q_bnhd`. (`size_wh` is a pair: width, height.)

    b  pictures (or person crops) of a batch
    h  rows, w columns: of pixels, patches or heatmap cells; in attention (`bnhd`) h is heads
    c  channels: RGB, or a network's features
    n  tokens, d their width, or the width of one head; without b also any number of rows
    k  keypoints
    l  layers, stacked on the leading axis of every block parameter
    2  x, y in px of the frame that the docstring names; 23 a 2x3 affine matrix
"""

__version__ = "0.1.0"
