#!/bin/sh
# Have the lower half of a picture drawn anew: sh examples/inpaint.sh [URL] < digit.png > reply.json
# A picture and its mask go as a form; what is white in the mask (or transparent) is drawn.
here=$(dirname "$0")
curl --fail-with-body --silent --show-error "${1:-http://127.0.0.1:8000}/v1/images/edits" \
  --form image=@-';type=image/png' --form mask=@"$here/mask.png" \
  --form prompt=three --form steps=20 --form resample=4 --form seed=0
