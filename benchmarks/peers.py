"""What the benchmarks race against: diffusers and denoising-diffusion-pytorch, sized like our networks.

  pip install -r requirements.txt -r benchmarks/requirements.txt

(into an environment of its own, if you like: the product never imports them). Both take 28×28 as it is, with three
resolutions: 28, 14 and 7. Nothing is padded.
"""

import copy
import sys
from collections.abc import Callable, Hashable

import torch
from limits import seconds as seconds
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

from diffusion.precision import computes_bf16

try:
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from denoising_diffusion_pytorch import denoising_diffusion_pytorch as lucidrains
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
except ImportError as error:
    sys.exit(f"{error}\nthe peers are missing: pip install -r benchmarks/requirements.txt")

lucidrains.tqdm = lambda steps, **_: steps  # no bars between the rows of a table

TUTORIAL = (32, 64, 64)  # UNet2DModel's widths in the MNIST notebooks of diffusers' course, 28×28 as it is
WIDTHS = {"unet": (32, 56, 64), "unet_fast": (16, 48, 48)}  # … and with as many parameters as ours, within 1 %
DIMS = {"unet": (24, (1, 2, 4)), "unet_fast": (16, (1, 3, 4))}  # Unet's dim and dim_mults, within 2 %


# --- Networks ---


def unet2d(widths: tuple[int, int, int], groups: int = 8) -> UNet2DModel:
    """diffusers' network as its course builds it for MNIST, class-conditional."""
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=groups,
        num_class_embeds=10,
    )


def tutorial() -> UNet2DModel:
    return unet2d(TUTORIAL, groups=32)


def gaussian_diffusion(dim: int, mults: tuple[int, ...], calls: int = 20) -> GaussianDiffusion:
    """denoising-diffusion-pytorch's network in its process, which draws by DDIM; unconditional."""
    return GaussianDiffusion(Unet(dim, dim_mults=mults, channels=1), image_size=28, sampling_timesteps=calls)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def flops(forward: Callable, *inputs: Tensor) -> int:
    """Floating point operations of a call; a multiplication and its addition are two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(*inputs)
    return counter.get_total_flops()


# --- The ways to run a network ---


def variants(device: torch.device, nhwc: bool, compiled: bool) -> list[str]:
    """As it comes, and what may make it faster in a line. On CUDA all of them: ours is compiled there, too."""
    cuda, fast = device.type == "cuda", "bf16" if computes_bf16(device) else "fp32"  # which gains from nhwc itself
    more = [f"{fast} nhwc"] * (nhwc or cuda or fast == "fp32") + [f"{fast} compiled"] * (compiled or cuda)
    return [*dict.fromkeys(["fp32", fast]), *more]


def varied(model: nn.Module, variant: str, device: torch.device) -> nn.Module:
    """A copy of the model for that variant; autocast is still to be entered."""
    model = copy.deepcopy(model).to(device)
    if "nhwc" in variant:
        model.to(memory_format=torch.channels_last)
    if "compiled" in variant:
        (model.model if isinstance(model, GaussianDiffusion) else model).compile()
    return model


def autocast(variant: str, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled="bf16" in variant)


# --- Sampling and training ---


def scheduler(sampler: str, calls: int, schedule: str = "linear") -> DDIMScheduler | DPMSolverMultistepScheduler:
    """diffusers' ddim, ddpm (its ddim with eta = 1, which is that) or dpm, for few steps of pixels as its pages advise.


    Both keep x_0 in [-1, 1], as ours do, and start at the last of the 1000 steps of training; but where the squared
    cosine leaves nothing of x_0, and eps says nothing of it, they start a little below.
    """
    cosine = schedule == "squaredcos_cap_v2"
    common = {"num_train_timesteps": 1000, "beta_schedule": schedule}
    if sampler in ("ddim", "ddpm"):
        made = DDIMScheduler(**common, timestep_spacing="leading" if cosine else "trailing")
        made.eta = {"ddim": 0.0, "ddpm": 1.0}[sampler]
    else:
        lowest = {"lambda_min_clipped": -5.1} if cosine else {}
        made = DPMSolverMultistepScheduler(**common, **lowest, timestep_spacing="trailing", thresholding=True)
    made.set_timesteps(calls)
    assert len(made.timesteps) == calls
    return made


@torch.no_grad()
def draw(model: UNet2DModel, steps: DDIMScheduler | DPMSolverMultistepScheduler, labels: Tensor,
         generator: torch.Generator | None = None) -> Tensor:  # fmt: skip
    """Images (B, 1, 28, 28) in [0, 1] of those labels (B,), by diffusers' own loop."""
    steps.set_timesteps(len(steps.timesteps))  # forget the last batch
    x = torch.randn(len(labels), 1, 28, 28, generator=generator).to(labels.device)
    random = {"eta": steps.eta, "generator": generator} if hasattr(steps, "eta") else {}
    for t in steps.timesteps:
        x = steps.step(model(x, t, labels).sample.float(), t, x, **random).prev_sample
    return (x / 2 + 0.5).clamp(0, 1)


def loader(root: str, batch_size: int) -> DataLoader:
    """torchvision's MNIST in [-1, 1], as the tutorials feed it."""
    pixels = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])
    data = datasets.MNIST(root, train=True, transform=pixels)
    return DataLoader(data, batch_size=batch_size, shuffle=True, drop_last=True)


def noised(schedule: str = "linear") -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Images (B, 1, 28, 28) to (noisy images, times, the noise), as diffusers' tutorial does it."""
    process = DDPMScheduler(num_train_timesteps=1000, beta_schedule=schedule)

    def degrade(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (len(x),), device=x.device)
        return process.add_noise(x, noise, t), t, noise

    return degrade


# --- Racing ---


class Race:
    """Ours against peers, block by block in turn; all numbers are seconds an image.

    A block of ours runs before and after every block of a peer, so that both see the same noise of the machine.
    """

    def __init__(self, ours: Callable[[], float], peers: dict[Hashable, Callable[[], float]]):
        self.ours, self.peers = ours, peers
        self.own: list[float] = []
        self.taken: dict[Hashable, list[float]] = {name: [] for name in peers}
        self.ratios: dict[Hashable, list[float]] = {name: [] for name in peers}

    def round(self) -> None:
        before = self.ours()
        self.own.append(before)
        for name, peer in self.peers.items():
            taken, after = peer(), self.ours()
            self.taken[name].append(taken)
            self.ratios[name].append(taken / ((before + after) / 2))
            self.own.append(before := after)

    def warm_up(self) -> None:
        """Compilation, caches, the first allocation."""
        for run in (self.ours, *self.peers.values()):
            run()
