#!/usr/bin/env bash
# The main job, end to end, on data it makes itself: train the gated NetVLAD,
# evaluate it, write a Kaggle submission, export for serving. Under 4 minutes
# on 2 cores, packages aside. From any folder:
#
#   scripts/demo.sh [DIRECTORY]      (default: .demo in this repository)
set -euo pipefail
demo=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/../.demo}")
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env ""

data=$demo/data model=$demo/model csv=$demo/submission.csv
classes=100
start=$SECONDS
mkdir -p "$demo"

echo "== Making synthetic videos in $data"
make_data() {
  "$python" scripts/make_dataset.py --output_dir="$data" --overwrite \
    --num_classes=$classes --label_frames=0.1 --noise=1.5 "$@" 2>&1 | quiet
}
# TensorFlow's greeting is no news to a first-time user.
quiet() { grep --line-buffered -vE '^(WARNING: All log|[IWE]0000 )' || true; }
make_data --split=train --num_videos=1500 --num_shards=4
make_data --split=validate --num_videos=500 --num_shards=2 --seed=1

echo "== Training NetVLADModelLF in $model"
"$python" train.py --train_dir="$model" --start_new_model \
  --train_data_pattern="$data/train*.tfrecord" \
  --model=NetVLADModelLF --frame_features=True \
  --feature_names=rgb,audio --feature_sizes=1024,128 --num_classes=$classes \
  --iterations=32 --netvlad_cluster_size=16 --netvlad_hidden_size=256 \
  --gating=True --netvlad_relu=False --netvlad_hidden_batch_norm=True \
  --moe_l2=1e-6 --base_learning_rate=0.002 \
  --batch_size=64 --num_epochs=12 --seed=0 2>&1 | quiet

echo "== Evaluating"
"$python" eval.py --train_dir="$model" --run_once --batch_size=256 \
  --eval_data_pattern="$data/validate*.tfrecord" 2>&1 | quiet

echo "== Writing the submission"
"$python" inference.py --train_dir="$model" --batch_size=256 \
  --input_data_pattern="$data/validate*.tfrecord" --output_file="$csv" \
  2>&1 | quiet

echo "== Exporting for serving"
"$python" export_model.py --train_dir="$model" 2>&1 | quiet

"$python" scripts/demo_summary.py --train_dir="$model" --submission="$csv" \
  --train_data_pattern="$data/train*.tfrecord" \
  --eval_data_pattern="$data/validate*.tfrecord" 2>&1 | quiet
echo "The demo took $((SECONDS - start)) s, packages aside."
