"""Watch a three come out of the noise, with OpenAI's client: python examples/stream.py [URL] (pip install openai)."""

import json
import sys

import openai

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = openai.OpenAI(base_url=f"{url}/v1", api_key="any")

own = {"seed": 0, "steps": 10, "guidance_scale": 2, "probabilities": True}
for event in client.images.generate(model="unet", prompt="3", stream=True, partial_images=3, extra_body=own):
    said = {"type": event.type, "t": getattr(event, "t", 0.0), "png": event.b64_json, "seen": event.probabilities}
    print(json.dumps(said))
