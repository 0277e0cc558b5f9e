#!/usr/bin/env bash
# The networks of final_model/ and their controls: all three stages on sharp photographs, blurred as they are used, and
# real pairs; then fine-tuning with and without the reblurring term, from the same network, with two seeds.
#
#   bash recipes/open_weights.sh PHOTOS PAIRS OUT [TESTSET]
#
# PHOTOS: sharp photographs; PAIRS: pairs in any layout of the README; TESTSET: pairs to score all networks on, if given.
# SEEDS="1": of the fine-tuning, to spread it over several runs; the last one, without it, scores all.
# What is there already is not trained again; a stage that was stopped goes on. START=FILE and REBLUR_START=FILE: the
# networks that deblur and reblur start from, where an earlier run left some. FLAGS, NF_FLAGS: for all stages, for deblur.
# An epoch is 12 times the photographs and 24 times the pairs, to which a folder FRAMES of more photographs (such as the
# pairs' sharp images) may come: its end costs little.
set -euo pipefail
here() { case $1 in *=*) echo "${1%%=*}=$(realpath -m "${1#*=}")" ;; ?*) realpath -m "$1" ;; esac; }
photos=$(here "$1") pairs=$(here "$2") out=$(here "$3") testset=$(here "${4:-}")
FRAMES=$(here "${FRAMES:-}") START=$(here "${START:-}") REBLUR_START=$(here "${REBLUR_START:-}")
cd "$(dirname "$0")/.."
nf_steps=${NF_STEPS:-49824} ft_steps=${FT_STEPS:-2076} reblur_steps=${REBLUR_STEPS:-4844}
nf_lr=${NF_LR:-1e-4} halve_every=${HALVE_EVERY:-18}  # epochs; a new network had 2e-4 and 4 at first
PYTHON=${PYTHON:-python}

train() {  # NAME, then flags
    local name=$1
    shift
    if [ -e "$out/$name/done" ]; then return; fi
    $PYTHON DR_training.py "$@" --trainset_dir "12*sharp=$photos" ${FRAMES:+"12*sharp=$FRAMES"} "24*$pairs" \
        --cache_dir "$out/cache" --precision bf16 --ema_decay 0.999 --save_every 5min --keep 1 --resume auto \
        --output_dir "$out/$name" --log_dir "$out/$name/log" ${FLAGS:-}
    touch "$out/$name/done"
}

train reblur --stage reblur --max_steps "$reblur_steps" --lr 2e-4 --n_steps 2 \
    ${REBLUR_START:+--reblurring_weights "$REBLUR_START"} \
    ${testset:+--valset_dir "$testset"}  # at its end: the PSNR of what it reblurs
train nf --stage deblur --max_steps "$nf_steps" --lr "$nf_lr" --n_steps "$halve_every" --clip_grad 0.3 \
    ${START:+--deblurring_weights "$START"} \
    ${testset:+--valset_dir "$testset" --val_every "$halve_every"} ${NF_FLAGS:-}
start="--reblurring_weights $out/reblur/ReBlurringNet.pth --deblurring_weights $out/nf/DeblurringNet_NF.pth"
for seed in ${SEEDS:-1 2}; do
    train "ft-seed$seed" --stage finetune $start --max_steps "$ft_steps" --clip_grad 0.3 --lambda_B 0.1 --seed $seed
    train "control-seed$seed" --stage finetune $start --max_steps "$ft_steps" --clip_grad 0.3 --lambda_B 0 --seed $seed
done

if [ -n "$testset" ] && [ -z "${SEEDS:-}" ]; then
    $PYTHON D_testing.py --testset_dir "$testset" --save_dir "$out/results" --overwrite --weights \
        "$out"/nf/DeblurringNet_NF.pth "$out"/{ft,control}-seed{1,2}/DeblurringNet_FT.pth ${TEST_FLAGS:-}
fi
