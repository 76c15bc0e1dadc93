"""Latents: what a codec keeps, what its training pays for, and that nothing stale or foreign is ever decoded."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from test_training import digits, run, same

from diffusion import files
from diffusion.api.generation import generate
from diffusion.api.model import Model, configure, load
from diffusion.data.latents import latents_path, load_latents, save_latents
from diffusion.errors import UserError
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.experiment.samplers import SAMPLERS, SamplingOptions
from diffusion.experiment.sampling import LOOPS, build_sampler
from diffusion.experiment.weights import load_weights, open_codec, save_weights
from diffusion.laboratory import latents as latents_of_laboratory
from diffusion.laboratory.flags import RunOptions
from diffusion.laboratory.judge import Judge
from diffusion.method.noise import Noise
from diffusion.training.objectives import reconstruction_terms
from diffusion.training.trainer import Trainer

VAE = Config(preset="small_vae", network="vae", hidden=(2, 4, 4), encoder=(3, 4, 2), latent=5, batch_size=20, lr=3e-3)
FLOW = Config(network="mlp", hidden=(12, 12), classes=10, schedule="rectified", target="velocity", codec="small_vae")
FLOW = FLOW.replace(batch_size=20, lr=3e-3)


def labelled(n=200):
    """Bright and dark squares, so that there is something to encode; the label says which."""
    data = digits(n)
    labels = torch.arange(n) % 10
    images = (data.images.float() * (labels + 1)[:, None, None, None] / 10).byte()
    return type(data)("MNIST", images, labels, tuple("0123456789"))


@pytest.fixture(scope="module")
def vae():
    """A codec, trained a little, its latents standardised."""
    t = run(Trainer(build(VAE), labelled()), 60)
    t.standardise_codec()
    return t.experiment


@pytest.fixture(scope="module")
def flow(vae):
    return run(Trainer(build(FLOW, codec=vae.codec), labelled()), 20).experiment


def test_draws_of_the_training_set_have_mean_0_and_deviation_1(vae):
    data = labelled()
    draws = torch.cat([vae.codec.draw(data.images, Noise(seed, torch.arange(len(data)))) for seed in range(60)])
    assert draws.mean(0).abs().max() < 0.03 and (draws.std(0) - 1).abs().max() < 0.03  # 12,000 draws each


def test_decoding_what_was_encoded_is_the_plain_reconstruction(vae):
    images = labelled(30).images
    mean, _ = vae.codec.autoencoder.encode(images / 255)
    plain = vae.codec.autoencoder.decode(mean)
    torch.testing.assert_close(vae.codec.decode(vae.codec.encode(images)), plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(Model(vae).decode(Model(vae).encode(images / 255)), plain, atol=1e-5, rtol=0)


def test_a_codec_and_its_statistics_come_back_from_a_file(vae, tmp_path):
    again = load_weights(save_weights(tmp_path / "small_vae.pth", vae))
    assert same(again.codec.state_dict(), vae.codec.state_dict()) and again.config == vae.config
    assert vae.codec.std.min() > 0.1 and not torch.allclose(vae.codec.mean, torch.zeros(()))


@pytest.mark.parametrize("config, count", [(VAE, 1), (FLOW, 3)])
def test_only_what_is_drawn_is_scored_under_several_seeds(config, count):
    judge = Judge.__new__(Judge)
    judge.run, judge.options = SimpleNamespace(config=config.replace(seed=7)), RunOptions(eval_seeds=3)
    judge.sample, judge.score = lambda seed, text: seed, lambda images: images
    assert judge.final_scores() == [7, 8, 9][:count]
    assert judge.final_scores("known") == ["known", 8, 9][:count]


def test_alpha_weighs_the_kl_divergence_and_nothing_else():
    losses, eps = [], torch.randn(20, 5, 1, 1)
    for alpha in (0.0, 1.0, 3.0):
        t = Trainer(build(VAE.replace(kl_weight=alpha)), labelled(20))
        losses.append(t.objective.loss(t.ema, labelled(20).images / 255, eps))
    _, kl = reconstruction_terms(t.ema, labelled(20).images / 255, eps)
    torch.testing.assert_close(losses[1] - losses[0], kl.mean())
    torch.testing.assert_close(losses[2] - losses[0], 3 * kl.mean())


class Grey:
    """Encodes everything as N(0, 4) in three latents, and decodes a grey."""

    variational = True

    def encode(self, images):
        mean = torch.zeros(len(images), 3, 1, 1)
        return mean, torch.full_like(mean, math.log(4))

    def decode(self, z):
        return torch.full((len(z), *self.shape), 0.5)


def test_losses_are_sums_over_an_image_so_that_a_tiled_one_counts_twice():
    grey, image = Grey(), torch.rand(1, 1, 4, 4)
    found = []
    for tiled in (image, torch.cat([image, image], dim=3)):
        grey.shape = tiled.shape[1:]
        found.append([each.item() for each in reconstruction_terms(grey, tiled, torch.zeros(1, 3, 1, 1))])
    assert found[1][0] == pytest.approx(2 * found[0][0]) and found[1][1] == found[0][1]
    assert found[0][0] == pytest.approx(((image - 0.5) ** 2).sum().item() / 2)
    assert found[0][1] == pytest.approx(3 * (4 - 1 - math.log(4)) / 2)  # KL(N(0, 4) || N(0, 1)), three times


def test_z_is_drawn_afresh_in_every_step_and_never_stored(vae):
    data, posterior = labelled(40), vae.codec.posterior(labelled(40).images)
    draw = lambda batch, seed: vae.codec.draw(batch, Noise(seed, torch.arange(40)))
    assert torch.equal(draw(posterior, 3), draw(data.images, 3))  # latents at hand are as good as images
    mean, log_var = posterior.chunk(2, dim=1)
    spread = torch.stack([draw(posterior, seed) for seed in range(400)])
    torch.testing.assert_close(spread.mean(0), (mean - vae.codec.mean) / vae.codec.std, atol=0.3, rtol=0)
    torch.testing.assert_close(spread.std(0), (log_var / 2).exp() / vae.codec.std, atol=0.05, rtol=0.2)


def test_a_flow_trains_alike_on_images_and_on_their_latents(vae):
    data = labelled()
    images, latents = (Trainer(build(FLOW, codec=copy.deepcopy(vae.codec)), data) for _ in range(2))
    latents.data = type(data)("MNIST", vae.codec.posterior(data.images), data.labels, data.classes)
    run(images, 12), run(latents, 12)
    assert images.losses == pytest.approx(latents.losses, rel=1e-5)
    assert same(vae.codec.state_dict(), latents.codec.state_dict())  # the codec is not trained along


@pytest.mark.parametrize("network, terms", [("vae", 2), ("autoencoder", 1)])
def test_an_autoencoder_learns_and_resumes_to_the_bit(network, terms):
    config = VAE.replace(network=network, loss="l2" if terms == 2 else "l1", milestones=(2,), gamma=0.1)
    whole, broken = run(Trainer(build(config), labelled()), 30), run(Trainer(build(config), labelled()), 13)
    assert sum(whole.losses[-5:]) < 0.9 * sum(whole.losses[:5])
    resumed = Trainer(build(config), labelled())
    resumed.load_state(broken.state())
    assert same(run(resumed, 30).state(), whole.state())
    assert whole.lr == pytest.approx(3e-4)  # after the second epoch of ten steps


# --- What is no picture, and what has no codec ---


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.sample(2),
        lambda model: model.trajectory(2),
        lambda model: model.restore(torch.rand(1, 1, 28, 28)),
        lambda model: model.denoise(torch.zeros(1, 5, 1, 1), 0.5),
        lambda model: model.forward_diffusion(torch.rand(1, 1, 28, 28), 0.5),
        lambda model: model.edit.vary(torch.rand(1, 1, 28, 28)),
        lambda model: model.edit.invert(torch.rand(1, 1, 28, 28)),
    ],
)
def test_noise_is_not_decoded_without_a_flow(vae, ask):
    with pytest.raises(UserError, match="encodes and decodes images, but draws none: train a flow"):
        ask(Model(vae))


def test_pixels_are_neither_filled_in_nor_counted_in_bits_by_a_model_of_latents(flow):
    images = labelled(2).images
    with pytest.raises(UserError, match="inpainting needs a model of pixels; this one works on 5 latents"):
        Model(flow).edit.inpaint(images, torch.ones(28, 28))
    with pytest.raises(UserError, match="bits a pixel needs a model of pixels"):
        Model(flow).bits_per_dim(images)


def test_a_flow_does_what_every_model_does(flow):
    model, images = Model(flow), labelled(3).images
    drawn = model.sample(6, steps=4, guidance_scale=2)
    assert drawn.shape == (6, 1, 28, 28) and drawn.min() >= 0 and drawn.max() <= 1
    two = model.sample(2, steps=4, guidance_scale=2)
    torch.testing.assert_close(two, drawn[:2], atol=1e-5, rtol=0)  # sample i of a seed is the same image
    torch.testing.assert_close(model.trajectory(6, steps=4, guidance_scale=2)[-1], drawn)
    x_t, noise = model.forward_diffusion(images, 0.5)
    assert x_t.shape == noise.shape == (3, 5, 1, 1)
    torch.testing.assert_close(x_t, 0.5 * model.encode(images) + 0.5 * noise)
    back, _ = model.edit.reconstruct(images, label=1, steps=20, refine=5)
    torch.testing.assert_close(back, model.decode(model.encode(images)), atol=0.02, rtol=0)


def test_a_flows_file_carries_its_codec_in_half_precision(flow, vae, tmp_path):
    path = save_weights(tmp_path / "flow.pth", flow, half=True)
    again = load_weights(path)  # no file of a codec is anywhere near
    assert again.codec.digest == vae.codec.digest
    torch.testing.assert_close(again.codec.std, vae.codec.std)
    torch.testing.assert_close(Model(again).sample(4, steps=4), Model(flow).sample(4, steps=4), atol=0.02, rtol=0)
    content = files.load(path)
    del content["codec"]
    with pytest.raises(UserError, match="there is no codec here for a model of the latents of 'small_vae'"):
        load_weights(files.save(path, content))


def test_the_codec_of_a_flow_is_found_by_name_and_has_to_be_one(vae, flow, tmp_path):
    save_weights(tmp_path / "small_vae.pth", vae)
    save_weights(tmp_path / "flow.pth", flow)
    assert open_codec(FLOW, [tmp_path]).digest == vae.codec.digest
    assert open_codec(VAE, [tmp_path]) is None
    with pytest.raises(UserError, match="unknown weight file 'smal_vae' — did you mean 'small_vae'"):
        open_codec(FLOW.replace(codec="smal_vae"), [tmp_path])
    with pytest.raises(UserError, match="no autoencoder, but a model that draws"):
        open_codec(FLOW.replace(codec="flow"), [tmp_path])
    with pytest.raises(UserError, match=r"of images \(1, 28, 28\), not \(3, 32, 32\)"):
        open_codec(FLOW.replace(shape=(3, 32, 32)), [tmp_path])


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"network": "vae", "hidden": (4, 4)}, "hidden of an autoencoder is three widths"),
        ({"network": "vae", "hidden": (4, 4, 4), "encoder": (4,)}, "encoder of an autoencoder is three widths"),
        ({"network": "vae", "hidden": (4, 4, 4), "shape": (1, 30, 28)}, "multiples of 4"),
        ({"network": "vae", "hidden": (4, 4, 4), "codec": "other"}, "works on pixels"),
        ({"network": "mlp", "hidden": (4,)}, "width of its trunk and of each block"),
        ({"network": "mlp", "hidden": (4, 4), "codec": "nowhere"}, "unknown weight file 'nowhere'"),
    ],
)
def test_what_cannot_be_built_is_refused_with_a_sentence(changes, says):
    with pytest.raises(UserError, match=says):
        configure(**changes)


# --- Latents in a file ---


def test_stale_latents_are_known_by_the_values_of_their_codec(vae, tmp_path):
    data, path = labelled(40), latents_path(tmp_path, "MNIST", "train", "weights/small vae.pth")
    assert path == tmp_path / "latents/MNIST_train_small_vae.pth"
    save_latents(path, data, "train", vae.codec.posterior(data.images), "small_vae", vae.codec.digest)
    loaded = load_latents(path, data, "train", vae.codec.digest)
    assert torch.equal(loaded.images, vae.codec.posterior(data.images)) and torch.equal(loaded.labels, data.labels)
    reloaded = load_weights(save_weights(tmp_path / "half.pth", vae, half=True))  # the same weights: still fresh
    assert load_latents(path, data, "train", reloaded.codec.digest).images.shape == (40, 10, 1, 1)
    other = copy.deepcopy(vae.codec)
    with torch.no_grad():
        next(other.autoencoder.parameters()).view(-1)[0] += 0.01  # one weight
    with pytest.raises(UserError, match=r"stale: their codec has other weights now; .*`python src encode-dataset`"):
        load_latents(path, data, "train", other.digest)
    with pytest.raises(UserError, match="is of MNIST train, not MNIST test"):
        load_latents(path, data, "test", vae.codec.digest)
    with pytest.raises(UserError, match="holds no latents"):
        load_latents(tmp_path / "half.pth", data, "train", vae.codec.digest)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="cut short or damaged"):
        load_latents(path, data, "train", vae.codec.digest)


def test_a_training_works_on_its_own_latents_whatever_another_writes_meanwhile(flow, vae, tmp_path, monkeypatch):
    data, save = labelled(20), latents_of_laboratory.save_latents

    def overtaken(path, data, split, posterior, name, digest):
        save(path, data, split, posterior + 1, name, "0" * 16)  # by a codec of the same name

    monkeypatch.setattr(latents_of_laboratory, "save_latents", overtaken)
    found = latents_of_laboratory.encoded(flow, data, "train", tmp_path, say=lambda text: None)
    assert torch.equal(found.images, vae.codec.posterior(data.images)) and torch.equal(found.labels, data.labels)


def test_a_write_that_fails_leaves_no_half_of_a_file(vae, tmp_path, monkeypatch):
    data, path = labelled(20), tmp_path / "latents.pth"

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_latents(path, data, "train", vae.codec.posterior(data.images), "small_vae", vae.codec.digest)
    assert list(tmp_path.iterdir()) == []


# --- Samplers ---


def test_a_diffusion_goes_by_the_samplers_that_draw_noise_on_straight_lines(flow):
    assert build_sampler(flow, SamplingOptions(diffusion=0.5)).loop is LOOPS[SAMPLERS["gaussian"]["sde"].loop]
    assert build_sampler(flow, SamplingOptions("ddpm", diffusion=0.5)).process.eta(torch.tensor(0.5)) == 0.5 / 8**0.5
    with pytest.raises(UserError, match="goes by sde or ddpm, not by 'heun'"):
        build_sampler(flow, SamplingOptions("heun", diffusion=0.5))
    with pytest.raises(UserError, match="to 2.828"):
        SamplingOptions(diffusion=2.9)
    with pytest.raises(UserError, match="straight lines"):
        build_sampler(build(Config(hidden=(4, 4))), SamplingOptions(diffusion=1.0))
    draw = lambda diffusion: generate(flow, torch.arange(4), SamplingOptions(steps=6, diffusion=diffusion))
    assert not torch.equal(draw(0.0), draw(1.5)) and torch.equal(draw(1.5), draw(1.5))


def test_load_names_a_codec_what_it_is(vae, tmp_path):
    model = load(save_weights(tmp_path / "small_vae.pth", vae))
    assert model.config.is_codec and model.encode(labelled(2).images).shape == (2, 5, 1, 1)
