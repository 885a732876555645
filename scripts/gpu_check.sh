#!/usr/bin/env bash
# Checks and measures this repository on one GPU: each model against the CPU, its
# speed and memory, in under ten minutes; further parts (mixed precision, XLA,
# largest batches, layers' tests) with --parts and --minutes. Ends with a table in
# Markdown to paste into an issue. Arguments go to gpu_check.py (--help):
#
#   scripts/gpu_check.sh
#   scripts/gpu_check.sh --models=NetVLADModelLF --parts=mixed,XLA,batch
#   scripts/gpu_check.sh --device=cpu --small
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
extras="[dev]"
if command -v nvidia-smi > /dev/null; then extras="[dev,gpu]"; fi
setup_env "$extras"
exec "$python" scripts/gpu_check.py "$@"
