#!/usr/bin/env bash
# The experiment of DeRaDiff (arXiv 2601.20198): align at every beta, then hold lam against it.
#
#     bash examples/reproduce.sh examples/reproduce_sdxl
#
# Needs, in the folder, pickapic/ (Pick-a-Pic v2, saved by datasets) and prompts.txt, one a line. Every step goes on
# where it was stopped. Other betas, training seeds, options and launchers:
#
#     BETAS="1000 2000" SEEDS=0 ALIGN="--steps 200" COMPARE="--seeds 4" LAUNCH="accelerate launch --num_processes 8" ...
set -euo pipefail
cd "$1"
for seed in ${SEEDS-0 1}; do
    for beta in ${BETAS-500 1000 2000 5000 8000 10000}; do
        # shellcheck disable=SC2086  # options and launchers are several words
        ${LAUNCH-accelerate launch} -m deradiff align --config align.yaml --beta "$beta" --seed "$seed" \
            --out "runs/beta$beta-seed$seed" ${ALIGN-}
    done
done
# shellcheck disable=SC2086
deradiff compare --config compare.yaml --out runs/compare ${COMPARE-}
