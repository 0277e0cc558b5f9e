#!/usr/bin/env bash
# The networks of final_model/ and their controls: all three stages on sharp photographs, blurred as they are used, and
# real pairs; then fine-tuning with and without the reblurring term, from the same network, with two seeds.
#
#   bash recipes/open_weights.sh PHOTOS PAIRS OUT [TESTSET]
#
# PHOTOS: sharp photographs; PAIRS: pairs in any layout of the README; TESTSET: pairs to score all networks on, if given.
# What is there already is not trained again; a stage that was stopped goes on.
# An epoch is 12 times the photographs and 60 times the pairs: its end costs little, and every batch of six is full.
set -euo pipefail
cd "$(dirname "$0")/.."
photos=$1 pairs=$2 out=$3 testset=${4:-}
nf_steps=${NF_STEPS:-21000} ft_steps=${FT_STEPS:-2100} reblur_steps=${REBLUR_STEPS:-2100}
halve_every=${HALVE_EVERY:-7}  # epochs, of NF's learning rate
PYTHON=${PYTHON:-python}

train() {  # NAME, then flags
    local name=$1
    shift
    if [ -e "$out/$name/done" ]; then return; fi
    $PYTHON DR_training.py "$@" --trainset_dir "12*sharp=$photos" "60*$pairs" --cache_dir "$out/cache" \
        --precision bf16 --ema_decay 0.999 --save_every 5min --keep 1 --resume auto \
        --output_dir "$out/$name" --log_dir "$out/$name/log" ${FLAGS:-}
    touch "$out/$name/done"
}

train reblur --stage reblur --max_steps "$reblur_steps" --lr 2e-4 --n_steps 1
train nf --stage deblur --max_steps "$nf_steps" --lr 2e-4 --n_steps "$halve_every" --clip_grad 1
start="--reblurring_weights $out/reblur/ReBlurringNet.pth --deblurring_weights $out/nf/DeblurringNet_NF.pth"
for seed in 1 2; do
    train "ft-seed$seed" --stage finetune $start --max_steps "$ft_steps" --lambda_B 0.1 --seed $seed
    train "control-seed$seed" --stage finetune $start --max_steps "$ft_steps" --lambda_B 0 --seed $seed
done

if [ -n "$testset" ]; then
    $PYTHON D_testing.py --testset_dir "$testset" --save_dir "$out/results" --overwrite --weights \
        "$out"/nf/DeblurringNet_NF.pth "$out"/{ft,control}-seed{1,2}/DeblurringNet_FT.pth ${TEST_FLAGS:-}
fi
