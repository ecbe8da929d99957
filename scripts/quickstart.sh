#!/usr/bin/env bash
# From a bare clone to a report, offline but for the installation: converts a tiny Sapiens checkpoint and
# predicts with it; simulates adults and toddlers; trains a tiny stand-in of Sapiens on the adults, then
# stage 0 on the toddlers; evaluates on toddlers that it never saw.
# See setup.sh for PYTHON and NKJAX_VENV.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# The lock holds the CPU build of jax. Left to itself, jax would also start libtpu, which is there to
# compile for TPUs and looks around for one.
export JAX_PLATFORMS=cpu

out=runs/quickstart
rm -rf "$out" # its own earlier results, nothing else: the commands below refuse to overwrite

echo "1/7  Converting a Sapiens pose checkpoint (tiny, its weights are random numbers)"
"$python" -m convert_weights tests/data/fixtures/tiny_pose.pth --out "$out/weights/pose"

echo "2/7  Finding keypoints in the pictures of tests/data/pictures"
"$python" scripts/predict.py --weights "$out/weights/pose" --input tests/data/pictures \
    --detections tests/data/pictures/detections.json --out "$out/predictions"

echo "3/7  Simulating adults to learn from first, and toddlers as a lab would hand them over"
"$python" scripts/simulate.py --out "$out/adults/lab" --domain adult --size 128x96 --seed 0 \
    --labelled 480 --unlabelled 0 --test 16
"$python" scripts/simulate.py --out "$out/lab" --domain toddler --size 256x192 --seed 0 \
    --labelled 192 --unlabelled 48 --test 48
"$python" scripts/show_simulated.py --lab "$out/lab" --out "$out/look"

echo "4/7  Checking and packing them, as any lab's data, and looking at what training will see"
lab=(--annotations "$out/lab/labels.json" --images "$out/lab/images" --skeleton "$out/lab/skeleton.json"
    --subjects "$out/lab/subjects.csv"
    --unlabelled "$out/lab/unlabelled" --detections "$out/lab/detections.json")
"$python" scripts/check_data.py "${lab[@]}" --report "$out/check"
"$python" scripts/pack_data.py "${lab[@]}" --out "$out/data"
"$python" scripts/show_data.py --data "$out/data" --out "$out/views.jpg"
"$python" scripts/pack_data.py --annotations "$out/adults/lab/labels.json" \
    --images "$out/adults/lab/images" --skeleton "$out/adults/lab/skeleton.json" \
    --subjects "$out/adults/lab/subjects.csv" --out "$out/adults/data"

echo "5/7  Learning from the labelled skeletons alone what toddlers' bodies do: the developmental prior"
"$python" scripts/fit_prior.py --config=configs/prior.py:tiny --data "$out/data" --out "$out/prior" \
    --config.steps=300 --config.batch=64 --config.optimizer.warmup=30 --config.log_every=100

echo "6/7  Training: a tiny stand-in of Sapiens on adults, then stage 0 on toddlers (minutes, on two cores)"
short=(--config.image_hw=128,96 --config.augment=weak --config.heatmaps.sigma=2 --config.batch=16
    --config.optimizer.learning_rate=2e-3 --config.optimizer.warmup=20 --config.log_every=50
    --config.evaluation.every=100 --config.evaluation.batch=16 --config.save_every=100)
"$python" scripts/train.py --config=configs/pretrain_adult.py:tiny --workdir="$out/adults/run" \
    --config.data="$out/adults/data" --config.steps=400 "${short[@]}"
"$python" scripts/train.py --config=configs/stage0_warmup.py:tiny --workdir="$out/stage0" \
    --config.data="$out/data" --config.init="$out/adults/run" --config.steps=200 "${short[@]}"

echo "7/7  Evaluating on toddlers that it never saw"
"$python" scripts/evaluate.py --run "$out/stage0" --data "$out/data" --split test --out "$out/report"

cat <<EOF

Done. What happened:
  - a PyTorch checkpoint of Sapiens' layout was converted, without running anything in it, to
    $root/$out/weights/pose
  - its network looked at two drawn pictures; keypoints and overlays are in
    $root/$out/predictions (random weights put joints anywhere)
  - toddlers were simulated; $root/$out/look/labelled.jpg shows them with
    skeleton, depth, normals and parts, $root/$out/look/measures.md measures them
  - they were checked, split by child and packed as training reads them, in $root/$out/data;
    $root/$out/views.jpg shows what a network sees of them (faces masked)
  - a prior learned their skeletons; from so few its samples are rough:
    $root/$out/prior/pictures/samples_body.png
  - a tiny network learned adults, then toddlers: $root/$out/stage0
  - it was measured on toddlers of its own; the figures are poor, as minutes of training are
With a Sapiens file, labels and hours of your own: README.md. The report:
$root/$out/report/report.html
EOF
