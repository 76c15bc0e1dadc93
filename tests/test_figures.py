"""A sheet of images is torchvision's grid, which takes a second to import, made without it."""

import numpy as np
import pytest
import torch
from torchvision.utils import make_grid

from diffusion.figures import sheet


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "columns"), [(1, 4), (3, 8), (7, 3), (8, 4)])
def test_a_sheet_is_torchvisions_grid(count, columns, channels):
    images = torch.rand(count, channels, 5, 6, generator=torch.Generator().manual_seed(count)) * 1.2 - 0.1
    grid = make_grid(images.clamp(0, 1), columns, padding=1, pad_value=64 / 255)  # (3, H, W), or one image as it is
    pixels = (grid * 255).round().byte().permute(1, 2, 0).numpy()
    picture = np.asarray(sheet(images, columns, scale=1).convert("RGB"))
    assert np.array_equal(picture, np.broadcast_to(pixels, picture.shape))
    assert np.array_equal(np.asarray(sheet(images, columns, scale=3).convert("RGB"))[1::3, 1::3], picture)
