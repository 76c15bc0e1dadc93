"""The server under load: images a second and the time a request takes, at 1, 8 and 64 clients, by three designs.

  OMP_NUM_THREADS=2 python benchmarks/serving.py --seconds 20
  python benchmarks/serving.py --designs continuous --clients 64 --model 'cold_unet row' --record runs/serving.jsonl

Each client asks for one image, waits for it and asks again. Uniform traffic: all with the same settings, 10 steps.
Mixed: 8 to 12 steps, three samplers, some guided. The designs:

  one         one request at a time
  equal       requests with equal settings that wait together are drawn together, to their end; then the next such batch
  continuous  the product: requests join and leave between two network calls, whatever their settings

The row "library" is the ceiling: the same model drawing full batches without any server. Overhead is the share of the
worker's busy time that it does not spend in network calls. Server and clients are two processes on the same machine.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import torch

from diffusion import load
from diffusion.serving.application import create
from diffusion.serving.batcher import Batcher
from diffusion.serving.server import Server
from diffusion.serving.settings import Settings

UNIFORM = [{"steps": 10}]
MIXED = [
    {"steps": 8 + k % 5, "sampler": ("sde", "ddim", "dpm")[k % 3], "guidance_scale": 1.0 + k % 2} for k in range(30)
]
TRAFFIC = {"uniform": UNIFORM, "mixed": MIXED}
ROWS = {"one": 1, "equal": 64, "continuous": 64}  # max_rows of each design


class Equal(Batcher):
    """Nobody joins before those who are under way are done."""

    def _admit(self) -> None:
        if self._waiting and not self._cohorts:
            self._begin(self._take(self.max_rows))


# --- The server's process ---


def serve(design: str, model: str) -> None:
    application = create(Settings(weights=(model,), port=0, max_rows=ROWS[design]), torch.device("cpu"))
    engine = application.app.state.engine
    if design == "equal":
        engine.batcher = Equal(engine.batcher.max_rows, engine.batcher.observe)
    Server(application, "127.0.0.1", 0, lambda text: print(text, flush=True)).run()


# --- The clients' process ---


async def ask(reader, writer, body: dict) -> None:
    """One request and its answer over a connection that stays open."""
    content = json.dumps(body).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + content)
    answer = await reader.readuntil(b"\r\n\r\n")
    reply = await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(reply.decode())


async def client(port: int, number: int, model: str, traffic: list[dict], until: float) -> list[tuple[float, float]]:
    """When each answer came, and after how long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    taken, turn = [], number
    while time.perf_counter() < until:
        began = time.perf_counter()
        await ask(reader, writer, {"model": model, "seed": turn, **traffic[turn % len(traffic)]})
        taken.append((time.perf_counter(), time.perf_counter() - began))
        turn += 7
    writer.close()
    return taken


async def crowd(port: int, count: int, model: str, traffic: list[dict], seconds: float) -> tuple[float, list[float]]:
    """Images a second once all are busy, and the seconds that each of those took."""
    warm = min(3.0, seconds / 4)
    start = time.perf_counter() + warm
    parts = await asyncio.gather(*(client(port, k, model, traffic, start + seconds) for k in range(count)))
    counted = [(end, taken) for part in parts for end, taken in part if start <= end <= start + seconds]
    return len(counted) / seconds, sorted(taken for _, taken in counted)


def numbers(url: str) -> dict[str, float]:
    text = urllib.request.urlopen(f"{url}/metrics").read().decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


def measure(url: str, count: int, args, traffic: str) -> dict:
    before = numbers(url)
    rate, taken = asyncio.run(crowd(int(url.rsplit(":", 1)[1]), count, args.model, TRAFFIC[traffic], args.seconds))
    spent = {name: value - before[name] for name, value in numbers(url).items() if name in before}
    busy, inside = spent["diffusion_step_seconds_sum"], spent["diffusion_network_seconds_total"]
    rows = spent["diffusion_rows_per_call_sum"] / max(1, spent["diffusion_rows_per_call_count"])
    at = lambda share: taken[min(len(taken) - 1, int(share * len(taken)))] if taken else float("nan")
    return {"images_per_second": rate, "p50": at(0.5), "p95": at(0.95), "p99": at(0.99)} | {
        "rows_per_call": rows,
        "overhead": 1 - inside / busy,
    }


def wait_until_ready(url: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/ready")
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not become ready")


def library(args) -> float:
    """Images a second of batches of 64, without a server."""
    model, rates = load(args.model), []
    for _ in range(3):
        began = time.perf_counter()
        model.sample(64, **UNIFORM[0])
        rates.append(64 / (time.perf_counter() - began))
    return statistics.median(rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="unet", help="a name in weights/")
    parser.add_argument("--designs", nargs="+", choices=ROWS, default=list(ROWS), help="rows")
    parser.add_argument("--traffic", nargs="+", choices=TRAFFIC, default=list(TRAFFIC), help="tables")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 64], help="that ask at once")
    parser.add_argument("--seconds", type=float, default=10, help="that each row is measured for")
    parser.add_argument("--record", type=Path, help="append the numbers to this file, one JSON object a line")
    parser.add_argument("--serve", choices=ROWS, help=argparse.SUPPRESS)  # this very file is the server, too
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve, args.model)
    print(f"{args.model}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"library, batches of 64: {library(args):.1f} images/s\n")
    print(
        f"{'design':<12}{'traffic':<9}{'clients':>8}{'images/s':>10}{'p50':>8}{'p95':>8}{'p99':>8}{'rows':>7}{'overhead':>10}"
    )
    for design in args.designs:
        command = [sys.executable, __file__, "--serve", design, "--model", args.model]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            wait_until_ready(url := child.stdout.readline().split()[1].rstrip("/"))
            for traffic in args.traffic:
                for count in args.clients:
                    row = measure(url, count, args, traffic)
                    said = f"{row['images_per_second']:>10.1f}{row['p50']:>7.2f}s{row['p95']:>7.2f}s{row['p99']:>7.2f}s"
                    print(
                        f"{design:<12}{traffic:<9}{count:>8}{said}{row['rows_per_call']:>7.1f}{row['overhead']:>10.1%}",
                        flush=True,
                    )
                    if args.record:
                        with args.record.open("a") as file:
                            print(
                                json.dumps({"design": design, "traffic": traffic, "clients": count, **row}), file=file
                            )
        finally:
            child.terminate()
            child.wait(30)


if __name__ == "__main__":
    main()
