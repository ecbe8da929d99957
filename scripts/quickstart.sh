#!/usr/bin/env bash
# From a bare clone to a first picture, offline but for the installation: converts a tiny Sapiens
# checkpoint, finds keypoints in two drawn pictures and packs them. See setup.sh for PYTHON and NKJAX_VENV.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# The lock holds the CPU build of jax. Left to itself, jax would also start libtpu, which is there to
# compile for TPUs and looks around for one.
export JAX_PLATFORMS=cpu

out=runs/quickstart
rm -rf "$out" # its own earlier results, nothing else: the commands below refuse to overwrite

echo "1/3  Converting a Sapiens pose checkpoint (tiny, its weights are random numbers)"
"$python" -m convert_weights tests/data/fixtures/tiny_pose.pth --out "$out/weights/pose"

echo "2/3  Finding keypoints in the pictures of tests/data/pictures"
"$python" scripts/predict.py --weights "$out/weights/pose" --input tests/data/pictures \
    --detections tests/data/pictures/detections.json --out "$out/predictions"

echo "3/3  Checking and packing the same pictures as a lab's unlabelled data, and looking at them"
lab=(--unlabelled tests/data/pictures --detections tests/data/pictures/detections.json)
"$python" scripts/check_data.py "${lab[@]}" --report "$out/check"
"$python" scripts/pack_data.py "${lab[@]}" --out "$out/data"
"$python" scripts/show_data.py --data "$out/data" --split unlabelled --out "$out/views.jpg"

cat <<EOF

Done. What happened:
  - a PyTorch checkpoint of Sapiens' layout was converted, without running anything in it, to
    $root/$out/weights/pose
  - its network looked at two drawn pictures; keypoints and overlays are in
    $root/$out/predictions
  - the pictures were packed as training reads them, in $root/$out/data;
    $root/$out/views.jpg shows what a network will see of them (faces masked)
The weights are random numbers, so the joints land anywhere; with a Sapiens file of your own in place
of tests/data/fixtures/tiny_pose.pth the first two commands find real ones. With labels of your own,
docs/data.md goes on from here.
Not there yet: training, evaluation and the report.
EOF
