"""The page in a browser, against a real server: what it shows, what it says, and that it is for everybody."""

import base64
import io
import json
import math
import re
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image
from server import running

from diffusion import configure
from diffusion.data import captions
from diffusion.method.process import Gaussian
from diffusion.method.schedule import Rectified

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium: on Debian, apt-get install chromium"),
]
STROKE = base64.urlsafe_b64encode(bytes([3, 60, 200, 120, 200, 190, 200])).decode().rstrip("=")  # 3 points
VIEWS = ["denoise", *(f"compare?what={each}" for each in ("guidance", "samplers", "cold", "training"))]
VIEWS += [f"prompt?steps=2&what={each}" for each in ("gallery", "guidance", "pair")]
VIEWS += ["draw", f"draw?mode=fill&mask={STROKE}", "draw?mode=blend", "understand"]
MODELS = ("unet", "cold_unet row", "cold_unet col", "default@0", "default@20")
WORDS = ("", "a", "blue", "red", "seven", "sevens", "three")
EXAMPLES = ["a red seven", "a blue seven", "a red three"]
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """With shipped models, and one that reads: it has not learnt anything, but each word changes what it draws."""
    given = {"network": "text", "words": WORDS, "caption_length": 4, "shape": (3, 16, 16), "hidden": (8, 16)}
    reader = configure(schedule="rectified", target="velocity", guidance_scale=2, **given)
    generator = torch.Generator().manual_seed(0)
    for parameter in reader.experiment.denoiser.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    reader.experiment.about["examples"] = EXAMPLES
    path = reader.save(tmp_path_factory.mktemp("weights") / "reader.pth")
    with running(weights=(*MODELS, str(path))) as client:
        yield client


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(server, browser):
    """`open_page(view, **context)` opens a view; at the end, no page has complained or asked anybody else."""
    contexts, complaints, elsewhere = [], [], []

    def outside(route):
        if route.request.url.startswith((f"{server.url}/", "data:", "blob:")):
            return route.fallback()
        elsewhere.append(route.request.url)
        route.abort()

    def open_view(view="denoise", **options):
        contexts.append(browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce"} | options))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.asked = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: page.asked.append(request) if "/v1/" in request.url else None)
        page.route("**/*", outside)
        page.goto(f"{server.url}/#{view}")
        return page

    yield open_view
    for context in contexts:
        context.close()
    assert complaints == [] and elsewhere == []


def finished(page):
    """Waits until all that was asked for is shown."""
    page.wait_for_selector(".status[data-kind=done]")
    page.wait_for_selector(".stale", state="detached")
    return page


@pytest.fixture(scope="module")
def modules(server, browser):
    """A page without a view, to call the page's modules in."""
    page = browser.new_page()
    page.goto(f"{server.url}/health")
    yield page
    page.close()


def until(page, condition, seconds: float = 20):
    """Waits for an expression of the page, or a condition here, to be true.

    The page's policy forbids playwright's own way, which is eval; and while we sleep, no request of the page gets on.
    """
    patience = time.monotonic() + seconds
    while not (condition() if callable(condition) else page.evaluate(condition)):
        assert time.monotonic() < patience, f"it never came that {condition}"
        page.wait_for_timeout(20)


def pixels(page, panel: int) -> np.ndarray:
    """The panel's canvas (H, W), as it is painted."""
    script = """(canvas) => {
        const { width, height } = canvas;
        return [height, width, [...canvas.getContext("2d").getImageData(0, 0, width, height).data]];
    }"""
    height, width, data = page.locator(".panel canvas:not(.pad)").nth(panel).evaluate(script)
    return np.array(data, dtype=int).reshape(height, width, 4)[..., 0]


def pictures(page, panel: int, count: int, across: int) -> np.ndarray:
    """The panel's pictures (N, 28, 28)."""
    painted = pixels(page, panel)
    corners = [(29 * (i // across), 29 * (i % across)) for i in range(count)]
    return np.stack([painted[y : y + 28, x : x + 28] for y, x in corners])


def api(server, **fields) -> np.ndarray:
    reply = server.post("/v1/images/generations", json=fields)
    assert reply.status_code == 200, reply.text
    files = [base64.b64decode(each["b64_json"]) for each in reply.json()["data"]]
    return np.stack([np.array(Image.open(io.BytesIO(file)), dtype=int) for file in files])


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and abs(a - b).max() <= 1  # of 255: other batch mates


def drag(page, *points):
    """Draws on the pad, at fractions of its size."""
    box = page.locator(".pad").bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


# --- Denoise ---


def test_the_pictures_are_those_of_the_api(open_page, server):
    page = finished(open_page("denoise?label=7&count=4&steps=6&sampler=ddim&scale=3&seed=5"))
    drawn = api(server, n=4, label=7, steps=6, sampler="ddim", guidance_scale=3, seed=5)
    assert near(pictures(page, 0, 4, 2), drawn) and near(pictures(page, 1, 4, 2), drawn)


def test_going_through_the_frames_costs_no_call(open_page):
    page = finished(open_page("denoise?count=1&steps=6&sampler=ddim"))
    asked, clock = len(page.asked), page.get_by_role("slider", name="Step", exact=True)
    final = pixels(page, 0)
    clock.press("Home")
    assert "step 0 of 6, t = 1.00" in page.locator(".reading").inner_text()
    noise, belief = pixels(page, 0), pixels(page, 1)
    assert noise.std() > 80 and belief.std() < noise.std()  # static, and the mean of all digits
    clock.press("End")
    assert (pixels(page, 0) == final).all() and len(page.asked) == asked


def test_what_was_drawn_before_comes_back_without_a_call(open_page):
    page = finished(open_page("denoise?count=1&steps=4&sampler=ddim"))
    first = pixels(page, 0)
    page.get_by_role("button", name="Other noise").click()
    until(page, "document.querySelector('.stale') !== null")
    assert not (pixels(finished(page), 0) == first).all()
    asked = len(page.asked)
    page.get_by_label("Seed").fill("0")
    page.get_by_label("Seed").press("Enter")
    until(page, "location.hash.includes('seed=0')")
    assert (pixels(finished(page), 0) == first).all() and len(page.asked) == asked


def test_the_address_holds_the_whole_state(open_page):
    page = finished(open_page("denoise?count=4&steps=5&sampler=ddim"))
    page.get_by_role("radio", name="3", exact=True).check()
    until(page, "location.hash.includes('label=3')")
    finished(page)
    page.get_by_role("slider", name="Step", exact=True).press("ArrowLeft")
    until(page, "location.hash.includes('frame=4')")
    other = finished(open_page(page.url.partition("#")[2]))
    assert other.get_by_role("radio", name="3", exact=True).is_checked()
    assert "step 4 of 5" in other.locator(".reading").inner_text()
    assert (pixels(other, 0) == pixels(page, 0)).all()


def test_the_classifier_tells_when_it_is_decided(open_page, server):
    page = finished(open_page("denoise?count=1&steps=10&sampler=ddim&label=4&scale=1"))
    story = page.locator(".story").inner_text()
    assert re.fullmatch(r"The picture: from step \d+ of 10 on \(t = [\d.]+\), the classifier sees “4”\.", story)
    script = """async () => {
        const { decided } = await import("/static/trace.js");
        const frame = (i) => ({ probabilities: [[0, 0, 0].with(i, 1)] });
        return [[2], [0, 2, 1, 1], [1, 0, 1], [1, 1]].map((seen) => decided(seen.map(frame), 0));
    }"""
    assert [(each["label"], each["frame"]) for each in page.evaluate(script)] == [(2, 0), (1, 2), (1, 2), (1, 0)]


def test_nothing_is_drawn_for_somebody_who_has_left(open_page, server):
    page = open_page("denoise?count=16&steps=100&sampler=ddpm&seed=1")
    until(page, lambda: server.engine.batcher.backlog > 1000)
    page.get_by_role("link", name="Understand").click()
    until(page, lambda: server.engine.batcher.backlog == 0, seconds=1)
    page.get_by_role("link", name="Denoise").click()  # the way back leads to where one was
    until(page, "location.hash.includes('steps=100')")


def test_a_model_that_reads_is_asked_in_words(open_page, server):
    page = finished(open_page("denoise?model=reader&count=1&steps=2&prompt=a+red+seven"))
    assert not page.get_by_text("Draw a", exact=True).is_visible()
    drawn = api(server, model="reader", prompt="a red seven", steps=2, guidance_scale=2, seed=0)
    assert np.ptp(pixels(page, 0)) > 100 and near(pixels(page, 0), drawn[0, ..., 0])


# --- Compare ---


def test_all_columns_start_from_the_same_noise(open_page, server):
    page = finished(open_page("compare?what=guidance&label=3"))
    drawn = api(server, n=3, label=3, guidance_scale=4, seed=0)
    assert near(pictures(page, 4, 3, 1), drawn)
    page.get_by_role("slider", name="Network calls", exact=True).press("Home")
    starts = [pixels(page, i) for i in range(5)]
    assert all((start == starts[0]).all() for start in starts) and starts[0].std() > 80


def test_samplers_are_compared_at_equal_network_calls(open_page, server):
    page = finished(open_page("compare?what=samplers&calls=4"))
    sent = [json.loads(each.post_data) for each in page.asked if each.method == "POST"]
    assert {each["sampler"] for each in sent} == {"ddim", "ddpm", "heun", "dpm"}
    plain = [{key: each[key] for key in ("model", "sampler", "steps")} for each in sent]
    assert {server.post("/v1/images/generations", json=each | {"n": 1}).json()["nfe"] for each in plain} == {7}


def test_hot_and_cold_and_the_epochs_have_their_columns(open_page):
    page = finished(open_page("compare?what=cold&place=14"))
    assert page.locator(".strip figcaption").all_inner_texts() == ["noise", "rows averaged", "columns averaged"]
    rows = pictures(page, 1, 3, 1)[0]
    assert rows.std(1).min() < 25 and rows.std(1).max() > 50  # some are averaged, but for a little noise, others not
    page.get_by_role("radio", name="Training").check()
    until(page, "document.querySelectorAll('.strip figure').length === 2")
    assert finished(page).locator(".strip figcaption").all_inner_texts() == ["epoch 0", "epoch 20"]


# --- Prompt ---


def asked(page) -> list[dict]:
    """What has been asked of the server so far."""
    return [json.loads(each.post_data) for each in page.asked if each.method == "POST"]


def test_a_gallery_draws_every_prompt_from_the_same_noise(open_page, server):
    page = finished(open_page("prompt?steps=2&count=1"))
    assert page.locator(".gallery figcaption").all_inner_texts() == EXAMPLES
    for i, prompt in enumerate(EXAMPLES):
        drawn = api(server, model="reader", prompt=prompt, steps=2, seed=0)
        assert near(pixels(page, i), drawn[0, ..., 0])
    page.get_by_label("Prompt", exact=True).fill("a blue three")
    page.get_by_label("Prompt", exact=True).press("Enter")
    until(page, "document.querySelectorAll('.gallery figure').length === 4")
    assert finished(page).locator(".gallery figcaption").all_inner_texts() == ["a blue three", *EXAMPLES]
    page.get_by_role("button", name=EXAMPLES[2]).click()  # goes on from that one, and costs no call
    calls, back = len(asked(page)), [EXAMPLES[2], "a blue three", *EXAMPLES[:2]]
    until(page, lambda: page.locator(".gallery figcaption").all_inner_texts() == back)
    assert page.get_by_label("Prompt", exact=True).input_value() == EXAMPLES[2] and len(asked(page)) == calls


def test_a_word_that_was_not_learnt_is_refused_where_it_is_written(open_page):
    page = finished(open_page("prompt?steps=2&count=1&prompt=a+red+seven"))
    box, calls = page.get_by_label("Prompt", exact=True), len(asked(page))
    box.fill("a bleu se")
    assert page.locator(".offers button").all_inner_texts() == ["seven", "sevens"]
    refusal = page.locator(".refusal", has_text="bleu")
    assert refusal.inner_text() == "It has not learnt “bleu”. The nearest: blue" and box.get_attribute("aria-invalid")
    page.get_by_role("button", name="sevens", exact=True).click()
    assert box.input_value() == "a bleu sevens " and box.evaluate("(box) => box === document.activeElement")
    box.press("Enter")
    assert len(asked(page)) == calls and refusal.is_visible()
    refusal.get_by_role("button", name="blue").click()
    box.press("Enter")
    until(page, "location.hash.includes('prompt=a+blue+sevens')")
    finished(page)
    assert not page.locator(".refusal", has_text="learnt").is_visible() and len(asked(page)) == calls + 1


def test_guidance_and_a_negative_prompt_go_together(open_page, server):
    page = finished(open_page("prompt?what=guidance&steps=2&prompt=a+red+seven&negative=a+blue+three"))
    assert page.locator(".strip figcaption").all_inner_texts() == [f"scale {scale}" for scale in (0, 1, 2, 3, 4, 6)]
    assert {each["guidance_scale"]: each.get("negative_prompt") for each in asked(page)} == dict.fromkeys((0, 1)) | (
        dict.fromkeys((2, 3, 4, 6), "a blue three")
    )
    told = {"model": "reader", "prompt": "a red seven", "negative_prompt": "a blue three", "guidance_scale": 6}
    drawn = api(server, n=3, steps=2, seed=0, **told)[..., 0]
    assert near(np.stack(np.split(np.delete(pixels(page, 5), [16, 33], 0), 3)), drawn)


def test_two_prompts_begin_as_the_same_noise_and_part(open_page):
    page = finished(open_page("prompt?what=pair&steps=2&count=4&prompt=a+red+seven&other=a+blue+three"))
    assert page.locator(".strip figcaption").all_inner_texts() == ["a red seven", "a blue three"]
    assert not (pixels(page, 0) == pixels(page, 1)).all()
    page.get_by_role("slider", name="Step", exact=True).press("Home")
    assert (pixels(page, 0) == pixels(page, 1)).all() and "step 0 of 2, t = 1.00" in page.locator(
        ".reading"
    ).inner_text()


def test_the_page_takes_a_sentence_apart_as_the_library_does(modules):
    said = ["A red seven, two BLUE ones!", "don't; semi-detached -x- é_ü 7th", "", " .,", "naïve ‘q’ 三 x²"]
    words = ["red", "blue", "seven", "sevens", "several"]
    script = f"""async () => {{
        const {{ completions, split, unknown }} = await import("/static/vocabulary.js");
        const words = {json.dumps(words)};
        return [
            {json.dumps(said)}.map((text) => split(text).map(([word]) => word)),
            [completions("red sev", words, 2), completions("red seven ", words, 9), completions("", words, 9)],
            [["red sev", true], ["red sev", false], ["rd", true], ["red qqqqqq x", true], ["red blue", false]]
                .map(([text, open]) => unknown(text, words, open)),
            unknown("whatever", [], false),
        ];
    }}"""
    split, completed, unknown, anything = modules.evaluate(script)
    assert split == [captions.split(text) for text in said]
    assert completed == [["seven", "sevens"], [], []] and anything is None
    assert unknown == [
        None,
        {"word": "sev", "at": 4, "near": "seven"},
        {"word": "rd", "at": 0, "near": "red"},
        {"word": "qqqqqq", "at": 4, "near": None},
        None,
    ]


# --- Draw ---


def test_a_drawing_is_recognised_and_brought_back(open_page):
    page = open_page("draw?strokes=")
    page.locator(".status", has_text="Draw a digit.").wait_for()
    drag(page, (0.2, 0.2), (0.8, 0.2), (0.6, 0.5), (0.45, 0.9))
    page.wait_for_selector("svg[aria-label^='The classifier sees 7']")
    finished(page)
    drawing = pixels(page, 0)
    asked = len(page.asked)
    page.get_by_role("slider", name="Strength").press("Home")
    until(page, "location.hash.includes('strength=1&')")
    assert page.get_by_text("brought back from there by unet, four times").is_visible()
    back = pictures(page, 2, 4, 2)
    assert abs(back - drawing).mean() < 20  # from t = 0.1 it comes back as it was
    page.get_by_role("slider", name="Strength").press("End")
    assert abs(pictures(page, 2, 4, 2) - drawing).mean() > 20 and len(page.asked) == asked
    assert re.search("It (stops being|stays) a “7”", page.locator(".story").inner_text())


MODELS_ASKED = """const ask = fetch; window.asked = []; window.fetch = (path, options) => {
    const body = options?.body;
    if (body) asked.push(body instanceof FormData ? body.get("model") : JSON.parse(body).model);
    return ask(path, options);
};"""


def test_sliders_ask_the_model_of_few_calls_and_the_rest_asks_the_others(browser, tmp_path):
    few = {"network": "unet", "hidden": (8, 16), "sampler": "consistency", "sampler_steps": 4}
    configure(classes=10, schedule="rectified", target="velocity", **few).save(tmp_path / "unet_few.pth")
    with running(weights=("unet", str(tmp_path / "unet_few.pth"))) as server:
        page = browser.new_page(viewport=DESKTOP, reduced_motion="reduce")
        page.add_init_script(MODELS_ASKED)
        page.goto(f"{server.url}/#draw?source=3")
        finished(page)
        assert page.evaluate("asked") == ["unet_few"] * 11  # for a digit, nine strengths, and what it looks like
        assert page.get_by_text("brought back from there by unet_few").is_visible()
        page.goto(f"{server.url}/#draw?source=3&mode=fill&mask={STROKE}")
        finished(page)
        assert page.evaluate("asked.slice(11)") == ["unet"] * 2  # the digit is still the same
        page.close()


def test_what_is_not_masked_is_kept_to_the_bit(open_page):
    page = open_page("draw?mode=fill")
    page.get_by_role("button", name="Bottom").click()
    until(page, "location.hash.includes('mask=A')")
    finished(page)
    drawing, filled = pixels(page, 0), pictures(page, 1, 4, 2)
    kept = slice(0, 12)
    assert (filled[:, kept] == drawing[kept]).all() and not (filled[:, 16:] == drawing[16:]).all()


def test_the_strip_leads_from_the_drawing_to_the_digit_of_the_model(open_page, server):
    page = finished(open_page("draw?mode=blend&towards=8"))
    drawing, first, last = (pixels(page, i) for i in (0, 1, 9))
    (digit,) = api(server, n=1, label=8, guidance_scale=2, seed=0)
    assert abs(first - drawing).mean() < 12 and abs(last - digit).mean() < 12
    assert page.locator(".nine .note").last.inner_text().startswith("8 ")


def test_a_drawing_becomes_a_digit_as_mnist_has_them(modules):
    strokes = "[[[30, 60], [90, 20]], [[60, 40], [60, 110]]]"  # far from the middle, and small
    script = f"""async () => {{
        const {{ digit }} = await import("/static/strokes.js");
        return [...digit({strokes}).getContext("2d").getImageData(0, 0, 28, 28).data];
    }}"""
    image = np.array(modules.evaluate(script)).reshape(28, 28, 4)[..., 0] / 255
    rows, columns = (np.flatnonzero(image.max(axis) > 0.5) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)  # its longer side fills the box
    middle = [(image.sum(axis) * (np.arange(28) + 0.5)).sum() / image.sum() for axis in (0, 1)]
    assert np.allclose(middle, 14, atol=0.1)


# --- Understand ---


PARTS = [(0.3, -1.5, 0.3), (0.7, 1.0, 0.6)]


def mixture(page, expression: str):
    """A value of mixture.js, whose exports are `m` and the mixture PARTS `parts`."""
    parts = json.dumps([dict(zip(("weight", "mean", "deviation"), part)) for part in PARTS])
    return page.evaluate(
        f'async () => {{ const m = await import("/static/mixture.js"), parts = {parts}; return {expression}; }}'
    )


def test_the_denoiser_of_the_browser_is_the_posterior_mean(modules):
    x_0 = np.linspace(-8, 8, 40_001)
    bell = lambda x, mean, deviation: np.exp(-(((x - mean) / deviation) ** 2) / 2) / deviation / math.sqrt(2 * math.pi)
    data = sum(weight * bell(x_0, mean, deviation) for weight, mean, deviation in PARTS)
    for t, x in ((0.9, 0.3), (0.5, -0.4), (0.1, 1.2), (0.02, -1.4)):
        joint = data * bell(x, (1 - t) * x_0, t)  # by numerical integration over all x_0
        assert mixture(modules, f"m.denoise(parts, {x}, {t})") == pytest.approx(
            (joint * x_0).sum() / joint.sum(), abs=1e-6
        )
        assert mixture(modules, f"m.density(parts, {x}, {t})") == pytest.approx(
            joint.sum() * (x_0[1] - x_0[0]), abs=1e-6
        )
    assert math.isfinite(mixture(modules, "m.denoise(parts, 500, 0.01)"))


@pytest.mark.parametrize("eta", [0, 1])
def test_the_step_of_the_browser_is_that_of_the_library(modules, eta):
    process = Gaussian(Rectified(), eta=eta)
    x, x_0, noise = (torch.tensor([[value]], dtype=torch.float64) for value in (0.7, -0.3, 1.1))
    for t, s in ((1.0, 0.6), (0.6, 0.59), (0.3, 0.0)):
        ours = process.step(x, x_0, *torch.tensor([t, s], dtype=torch.float64), lambda like: noise)
        assert mixture(modules, f"m.step(0.7, -0.3, {t}, {s}, {eta}, 1.1)") == pytest.approx(ours.item(), abs=1e-9)


def test_more_steps_end_nearer_to_the_data(modules):
    bell = "m.spread([{weight: 1, mean: 0, deviation: 1}], 400)"
    off = lambda steps: f"m.distance(parts, {bell}.map((x) => m.path(parts, x, {steps}, 0).at(-1)))"
    few, many = (mixture(modules, off(steps)) for steps in (4, 200))
    assert many < 0.02 < few and mixture(modules, "m.distance(parts, m.spread(parts, 400))") == 0


def test_it_works_with_the_server_away(open_page):
    page = open_page("understand?time=0")
    page.wait_for_load_state("networkidle")  # what the page is made of is there
    page.context.set_offline(True)
    clock = page.get_by_role("slider", name="Time")
    clock.press("End")
    page.get_by_role("radio", name="Three").check()
    assert "t = 0.00" in page.locator(".reading").inner_text() and page.asked == []
    page.get_by_role("link", name="Denoise").click()
    page.wait_for_selector(".status[data-kind=gone]")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    finished(page)


# --- What the server says ---


def answer_next(page, **reply):
    """Answers the next generation instead of the server."""
    page.route("**/v1/images/generations", lambda route: route.fulfill(**reply), times=1)


REFUSALS = [  # status, what it is shown as, and in which words
    (429, "waiting", "The queue is full. Asking again in 1 s."),
    (503, "waiting", "Come later. Asking again in 1 s."),
    (500, "failed", "Come later."),
    (422, "refused", "Come later."),
]


def test_every_refusal_is_shown_for_what_it_is(open_page):
    page = finished(open_page("denoise?count=1&steps=2&sampler=ddim"))
    body, again = json.dumps({"error": {"message": "come later"}}), page.get_by_role("button", name="Try again")
    for status, kind, words in REFUSALS:
        answer_next(page, status=status, body=body, headers={"Retry-After": "1"})
        page.get_by_role("button", name="Other noise").click()
        page.wait_for_selector(f".status[data-kind={kind}]")
        assert words in page.locator(".status p").inner_text() and again.is_visible() == (kind == "failed")
        if kind == "failed":
            again.click()
        if kind != "refused":  # nothing would be better the second time
            finished(page)


def test_a_stream_that_breaks_off_is_said(open_page):
    page = finished(open_page("denoise?count=1&steps=2&sampler=ddim"))
    torn = 'data: {"type": "image_generation.partial_image", "b64'
    answer_next(page, status=200, body=torn)
    page.get_by_role("button", name="Other noise").click()
    page.wait_for_selector(".status[data-kind=gone]")


def test_a_server_with_a_token_is_told_it(browser):
    with running(weights=("unet",), token="a-long-secret-of-ours") as server:
        page = browser.new_page()
        page.goto(f"{server.url}/#denoise?count=1&steps=2")
        page.get_by_label("Token").fill("another-secret-of-ours")
        page.get_by_label("Token").press("Enter")
        page.get_by_label("Token").fill("a-long-secret-of-ours")
        page.get_by_label("Token").press("Enter")
        finished(page)
        assert "a-long-secret" not in page.url
        assert not page.get_by_role("link", name="Prompt").is_visible()  # none of its models reads
        page.close()


def test_events_are_the_same_however_the_stream_is_cut(modules):
    script = """async () => {
        const { parse } = await import("/static/stream.js");
        const text = ': ping\\n\\nevent: a\\r\\ndata: {"x":\\r\\ndata: "é"}\\r\\n\\r\\ndata:{"x":2}\\n\\n';
        const bytes = new TextEncoder().encode(text);
        const seen = new Set();
        for (let size = 1; size <= bytes.length; size++) {
            const parts = [];
            for (let i = 0; i < bytes.length; i += size) parts.push(bytes.slice(i, i + size));
            const events = [];
            for await (const event of parse(new Blob(parts).stream())) events.push(event);
            seen.add(JSON.stringify(events));
        }
        return [...seen];
    }"""
    assert modules.evaluate(script) == ['[{"x":"é"},{"x":2}]']


# --- For everybody ---


def look_over(page):
    """Asserts that axe has nothing to say and that nothing is wider than the window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    violations = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    "view", ["denoise?steps=4&sampler=ddim", "compare", "draw?mode=fill", "prompt?steps=2&count=1", "understand"]
)
def test_axe_finds_nothing_on_a_phone_at_night(open_page, view):
    page = open_page(view, viewport=PHONE, color_scheme="dark")
    page.wait_for_selector(".status:is([data-kind=done], [data-kind=idle])" if view != "understand" else ".curve")
    look_over(page)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_in_any_view_theme_or_width(open_page, view, scheme):
    page = open_page(view, viewport=PHONE, color_scheme=scheme)
    if view != "understand":
        finished(page)
    look_over(page)
    page.set_viewport_size(DESKTOP)
    look_over(page)


def test_a_keyboard_is_enough(open_page):
    page = finished(open_page("denoise?count=4&steps=4&sampler=ddim"))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")  # from "any" to "0"
    until(page, "location.hash.includes('label=0')")
    finished(page)
    page.get_by_role("radio", name="Picture 2").press("ArrowRight")
    assert page.get_by_role("radio", name="Picture 3").is_checked()


def test_nothing_moves_when_nothing_happens(open_page):
    page = finished(open_page("denoise?count=1&steps=4&sampler=ddim", reduced_motion="no-preference"))
    until(page, "[...document.querySelectorAll('.timeline input')].every((each) => each.value === each.max)")
    until(page, "location.hash")
    script = """() => new Promise((resolve) => {
        let changes = 0;
        new MutationObserver((all) => (changes += all.length))
            .observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
        setTimeout(() => resolve([changes, document.getAnimations().length]), 700);
    })"""
    assert page.evaluate(script) == [0, 0]


@pytest.mark.parametrize(("motion", "frames"), [("no-preference", 7), ("reduce", 1)])
def test_motion_is_for_those_who_want_it(open_page, motion, frames):
    page = finished(open_page("denoise?count=1&steps=6&sampler=ddim", reduced_motion=motion))
    until(page, "document.querySelector('.reading').textContent.includes('step 6 of 6')")
    page.evaluate("""() => {
        window.readings = new Set();
        new MutationObserver(() => window.readings.add(document.querySelector(".reading")?.textContent))
            .observe(document.querySelector("main"), { subtree: true, childList: true, characterData: true });
    }""")
    page.get_by_role("button", name="Other noise").click()
    until(page, "document.querySelector('.stale') !== null")
    finished(page)
    until(page, "document.querySelector('.reading').textContent.includes('step 6 of 6')")
    seen = page.evaluate("[...window.readings]")
    assert len({each for each in seen if " of 6" in each}) == frames


def test_a_picture_and_a_link_can_be_taken_away(open_page):
    page = finished(
        open_page("denoise?count=4&steps=4&sampler=ddim", permissions=["clipboard-read", "clipboard-write"])
    )
    with page.expect_download() as download:
        page.get_by_role("button", name="Download PNG").click()
    assert download.value.suggested_filename == "denoise.png"
    picture = Image.open(download.value.path())
    assert min(picture.size) > 600 and np.ptp(np.array(picture.convert("L"))) == 255
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_an_address_that_cannot_be_is_mended(open_page):
    page = finished(open_page("denoise?label=12&count=1&steps=2&seed=1e9&frame=&scale=x&model=<b>&sampler=ddim"))
    assert page.get_by_role("radio", name="any").is_checked() and page.locator("main b").count() == 0
    assert page.get_by_label("Seed").input_value() == "0" and page.get_by_label("Model").input_value() == "unet"


def test_an_address_is_read_as_it_was_written(modules):
    script = """async () => {
        const { number, read, whole, word, write } = await import("/static/address.js");
        const fields = { w: word("x", ["x", "y"]), t: word(""), n: whole(3, 1, 9), r: number(2, 0, 4) };
        const views = { a: { fields } };
        const values = { w: "y", t: "a&b=c #?", n: 7, r: 0.5 };
        return [write("a", values), "", "#nowhere?n=4", "#constructor", "#a?%", "#a?w=z&n=10&r=1e3", "#a?n=2.5&r="]
            .map((address) => read(address, views));
    }"""
    usual = {"w": "x", "t": "", "n": 3, "r": 2}
    written, *others = modules.evaluate(script)
    assert written == ["a", {"w": "y", "t": "a&b=c #?", "n": 7, "r": 0.5}]
    assert others == [["a", usual], ["a", usual | {"n": 4}], *[["a", usual]] * 4]


def test_the_page_is_small(server):
    """No more than a picture's worth of files, so that it is there within a second on a slow line."""
    index = server.get("/")
    sizes, todo, seen = [len(index.content)], ["/static/main.js", "/static/style.css", "/static/icon.svg"], set()
    while todo:
        if (path := todo.pop()) in seen:
            continue
        seen.add(path)
        reply = server.get(path)
        assert reply.status_code == 200
        sizes.append(len(reply.content))
        todo += [f"/static/{name}" for name in re.findall(r'from "\./(\w+\.js)"', reply.text)]
    assert len(seen) > 20 and sum(sizes) < 150_000


if __name__ == "__main__":  # OMP_NUM_THREADS=1 python tests/test_page.py: the README's picture
    with running(weights=("unet",)) as server, sync_api.sync_playwright() as play:
        page = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"]).new_page(viewport=DESKTOP)
        page.goto(f"{server.url}/#denoise?frame=6")
        finished(page)
        page.screenshot(path="docs/page.png", full_page=True)
