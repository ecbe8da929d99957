#!/usr/bin/env bash
# From a bare clone to a first picture, offline but for the installation: converts a tiny Sapiens
# checkpoint and finds keypoints in two drawn pictures. See setup.sh for PYTHON and NKJAX_VENV.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# The lock holds the CPU build of jax. Left to itself, jax would also start libtpu, which is there to
# compile for TPUs and looks around for one.
export JAX_PLATFORMS=cpu

out=runs/quickstart
rm -rf "$out" # its own earlier results, nothing else: the commands below refuse to overwrite

echo "1/2  Converting a Sapiens pose checkpoint (tiny, its weights are random numbers)"
"$python" -m convert_weights tests/data/fixtures/tiny_pose.pth --out "$out/weights/pose"

echo "2/2  Finding keypoints in the pictures of tests/data/pictures"
"$python" scripts/predict.py --weights "$out/weights/pose" --input tests/data/pictures \
    --detections tests/data/pictures/detections.json --out "$out/predictions"

cat <<EOF

Done. What happened:
  - a PyTorch checkpoint of Sapiens' layout was converted, without running anything in it, to
    $root/$out/weights/pose
  - its network looked at two drawn pictures; keypoints and overlays are in
    $root/$out/predictions
The weights are random numbers, so the joints land anywhere; with a Sapiens file of your own in place
of tests/data/fixtures/tiny_pose.pth the same two commands find real ones.
Not there yet: training, evaluation and the report.
EOF
