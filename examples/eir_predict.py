"""Draw a three and a five as EIR's clients do, with nothing but Python: python examples/eir_predict.py [URL]."""

import base64
import json
import sys
import urllib.request

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
items = [{"mnist_tabular": {"CLASS": "3"}}, {"image": "a placeholder, if your client sends one", "caption": "a five"}]

shape = json.load(urllib.request.urlopen(f"{url}/info"))["outputs"]["image"]["shape"]
request = urllib.request.Request(f"{url}/predict", json.dumps(items).encode(), {"Content-Type": "application/json"})
reply = json.load(urllib.request.urlopen(request))
for number, item in enumerate(reply["result"]):
    raw = base64.b64decode(item["image"])  # float32, little-endian, (C, H, W), in [0, 1]
    with open(f"image_{number}.f32", "wb") as file:
        file.write(raw)
    print(json.dumps({"file": f"image_{number}.f32", "shape": shape, "bytes": len(raw)}))
