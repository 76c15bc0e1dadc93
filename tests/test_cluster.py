"""Two replicas on this machine, one of which dies under load: every request is answered, and soon both are there."""

import concurrent.futures
import os
import signal
import time
import uuid
from pathlib import Path

import httpx
import openai
import pytest
from server import started

pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-cluster.txt")
MODEL = "default@20"


def replicas(mark: str) -> set[int]:
    """The processes of the replicas that this test has started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = f"SERVE_TEST={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
            if ours and (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica"):
                found.add(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.slow
def test_one_of_two_replicas_dies_under_load_and_every_request_is_answered(monkeypatch):
    monkeypatch.setenv("SERVE_TEST", mark := uuid.uuid4().hex)
    with started("--port", "8137", "--weights", MODEL, "--replicas", "2") as (process, url):
        until, two = time.monotonic() + 25, replicas(mark)
        assert len(two) == 2

        def raw(number: int) -> list[int]:
            statuses = []
            with httpx.Client(base_url=url, timeout=30) as client:
                while time.monotonic() < until:
                    body = {"steps": 30, "seed": number}
                    statuses.append(client.post("/v1/images/generations", json=body).status_code)
            return statuses

        def patient(number: int) -> int:
            client, drawn = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=3), 0
            while time.monotonic() < until:
                drawn += len(client.images.generate(prompt="", extra_body={"steps": 30, "seed": number}).data)
            return drawn

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(raw, number) for number in range(6)]
            drawn = [pool.submit(patient, number) for number in range(2)]
            time.sleep(5)
            os.kill(min(two), signal.SIGKILL)
            statuses = [status for answer in answers for status in answer.result()]
            assert all(each.result() > 10 for each in drawn), "OpenAI's client tries again, and never fails"
        print({status: statuses.count(status) for status in set(statuses)}, [each.result() for each in drawn])
        assert statuses.count(200) > 50 and all(status == 200 or status >= 500 for status in statuses)
        while len(now := replicas(mark)) < 2 or min(two) in now:
            time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
