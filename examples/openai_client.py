"""Draw two sevens with OpenAI's own client: python examples/openai_client.py [URL] (pip install openai)."""

import base64
import sys

import openai

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = openai.OpenAI(base_url=f"{url}/v1", api_key="any")  # the server's token, if it has one

own = {"seed": 0, "steps": 10, "guidance_scale": 2}  # what OpenAI's API does not know goes into extra_body
reply = client.images.generate(model="unet", prompt="seven", n=2, extra_body=own)
for image in reply.data:
    with open(f"seven_{image.index}.png", "wb") as file:
        file.write(base64.b64decode(image.b64_json))
print(reply.to_json())
