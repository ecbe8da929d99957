"""A torch network of the same shapes as a nkjax pose network, to be timed beside it.

Random weights; the peer of `scripts/benchmark.py model`. Written from the shapes alone.
"""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-norm attention and MLP with torch's fused attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        """(b, n, d) to (b, n, d)."""
        b, n, d = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(b, n, d))
        return x + self.fc2(functional.gelu(self.fc1(self.ln2(x))))


class PoseTwin(nn.Module):
    """ViT with a pose head; (b, 3, H, W) to (b, K, H/4, W/4)."""

    def __init__(self, spec):
        super().__init__()
        width, (h, w) = spec.backbone.width, spec.backbone.grid
        self.grid = (h, w)
        self.patches = nn.Conv2d(3, width, 16, 16, padding=spec.backbone.patch_padding)
        self.positions = nn.Parameter(0.02 * torch.randn(1, h * w, width))
        self.blocks = nn.ModuleList(
            Block(width, spec.backbone.heads) for _ in range(spec.backbone.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        layers, channels = [], width
        for out in spec.head.deconvs:
            layers.append(nn.ConvTranspose2d(channels, out, 4, 2, 1, bias=False))
            layers += [nn.InstanceNorm2d(out), nn.SiLU()]
            channels = out
        for out in spec.head.convs:
            layers += [nn.Conv2d(channels, out, 1), nn.InstanceNorm2d(out), nn.SiLU()]
            channels = out
        self.head = nn.Sequential(*layers, nn.Conv2d(channels, spec.head.outputs, 1))

    def forward(self, images):
        """Raw heatmaps."""
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x.transpose(1, 2).unflatten(2, self.grid).contiguous())
