#!/usr/bin/env bash
# From a folder of videos and a spreadsheet of labels to a trained model and
# named predictions, offline. Sixty videos of five seconds take two minutes on 2
# cores, packages aside. From any folder:
#
#   scripts/own_videos.sh FOLDER LABELS OUTPUT [FLAGS OF make_records.py]
#   scripts/own_videos.sh clips clips/labels.csv runs/own
#   scripts/own_videos.sh songs songs/labels.csv runs/songs --encoder=audio=logmel
#
# LABELS is a CSV file: an id, which is the file's name, and names separated
# by ;. OUTPUT gets data/ and model/. Stopped, the same command goes on.
set -euo pipefail
if [ $# -lt 3 ]; then
  sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | head -n 11
  exit 1
fi
folder=$(realpath "$1") labels=$(realpath "$2") output=$(realpath -m "$3")
shift 3
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env "[extract]"
data=$output/data model=$output/model
start=$SECONDS

# 3: some files could not be used, and are listed.
listing() { "$@" || [ $? = 3 ]; }
has() { compgen -G "$data/$1-*.tfrecord" > /dev/null; }

echo "== Features and records in $data"
listing "$python" scripts/make_records.py --features="$folder" \
  --labels="$labels" --output_dir="$data" "$@"

echo "== Training NetVLADModelLF in $model"
"$python" train.py --train_dir="$model" \
  --train_data_pattern="$data/train-*.tfrecord" --model=NetVLADModelLF \
  --netvlad_cluster_size=8 --netvlad_hidden_size=64 --gating=True \
  --ema_decay=0.99 --base_learning_rate=0.001 --batch_size=16 \
  --num_epochs=0 --max_steps=600 --export_model_steps=0

if has validate; then
  echo "== Evaluating on videos that it has not seen"
  "$python" eval.py --train_dir="$model" --run_once \
    --eval_data_pattern="$data/validate-*.tfrecord"
fi
if has test; then
  echo "== Naming others that it has not seen"
  "$python" predict.py --model="$model" "$data"/test-*.tfrecord
fi
echo "It took $((SECONDS - start)) s, packages aside. To name other files:"
echo "  $python predict.py --model=$model FILE ..."
