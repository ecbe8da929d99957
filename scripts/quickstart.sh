#!/usr/bin/env bash
# From a bare clone to first pictures, offline but for the installation: converts a tiny Sapiens
# checkpoint, finds keypoints in two drawn pictures, simulates toddlers and packs them as a lab's data.
# See setup.sh for PYTHON and NKJAX_VENV.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# The lock holds the CPU build of jax. Left to itself, jax would also start libtpu, which is there to
# compile for TPUs and looks around for one.
export JAX_PLATFORMS=cpu

out=runs/quickstart
rm -rf "$out" # its own earlier results, nothing else: the commands below refuse to overwrite

echo "1/4  Converting a Sapiens pose checkpoint (tiny, its weights are random numbers)"
"$python" -m convert_weights tests/data/fixtures/tiny_pose.pth --out "$out/weights/pose"

echo "2/4  Finding keypoints in the pictures of tests/data/pictures"
"$python" scripts/predict.py --weights "$out/weights/pose" --input tests/data/pictures \
    --detections tests/data/pictures/detections.json --out "$out/predictions"

echo "3/4  Simulating toddlers, as a lab would hand them over, and looking at them beside their truth"
"$python" scripts/simulate.py --out "$out/lab" --domain toddler --size 256x192 --seed 0 \
    --labelled 96 --unlabelled 48 --test 32
"$python" scripts/show_simulated.py --lab "$out/lab" --out "$out/look"

echo "4/4  Checking and packing them, as any lab's data, and looking at what training will see"
lab=(--annotations "$out/lab/labels.json" --images "$out/lab/images" --skeleton "$out/lab/skeleton.json"
    --subjects "$out/lab/subjects.csv"
    --unlabelled "$out/lab/unlabelled" --detections "$out/lab/detections.json")
"$python" scripts/check_data.py "${lab[@]}" --report "$out/check"
"$python" scripts/pack_data.py "${lab[@]}" --out "$out/data"
"$python" scripts/show_data.py --data "$out/data" --out "$out/views.jpg"

cat <<EOF

Done. What happened:
  - a PyTorch checkpoint of Sapiens' layout was converted, without running anything in it, to
    $root/$out/weights/pose
  - its network looked at two drawn pictures; keypoints and overlays are in
    $root/$out/predictions
  - toddlers were simulated; $root/$out/look/labelled.jpg shows them with
    skeleton, depth, normals and parts, $root/$out/look/measures.md measures them
  - they were checked, split by child and packed as training reads them, in $root/$out/data;
    $root/$out/views.jpg shows what a network will see of them (faces masked)
The weights are random numbers, so the joints land anywhere; with a Sapiens file of your own in place
of tests/data/fixtures/tiny_pose.pth the first two commands find real ones. With labels of your own,
docs/data.md goes on from here.
Not there yet: training, evaluation and the report.
EOF
