#!/bin/sh
# Draw a sneaker: sh examples/generate.sh [URL] > reply.json
curl --fail-with-body --silent --show-error "${1:-http://127.0.0.1:8000}/v1/images/generations" \
  --header 'Content-Type: application/json' \
  --data '{"model": "unet_fashion", "prompt": "a sneaker", "seed": 0, "steps": 10, "guidance_scale": 2}'
