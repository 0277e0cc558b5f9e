#!/usr/bin/env bash
# Does the reblurring term help? Fine-tunes a network with several weights of the term, 0 being the control, and seeds.
#
#   bash recipes/finetune_control.sh NF R OUT TESTSET TRAINSET...
#
# NF and R: the networks that deblur and reblur; TESTSET: pairs on which all are scored, several in quotes, or "", and
# nothing is scored; TRAINSET: data sets as DR_training.py takes them, such as 12*sharp=PHOTOS 24*PAIRS. FT_STEPS: of
# each run; LAMBDAS: weights of the term; SEEDS: LAMBDAS=0 SEEDS=1 spreads the runs over several calls, the last of which
# scores; TRAIN_FLAGS and TEST_FLAGS: for the two scripts. Finished runs are not repeated; a stopped run is resumed.
# PYTHON, TESTSET and the flags may be several words; a path with spaces stands in quotes.
set -euo pipefail
if [ $# -lt 5 ]; then
    echo "usage: bash recipes/finetune_control.sh NF R OUT TESTSET TRAINSET... (see the comments at the top of the script)" >&2
    exit 2
fi
words() {  # TEXT: its words, each ended by a zero byte; a path with spaces stands in quotes, or is the whole text
    if [ -z "$1" ]; then return; fi
    if [ -e "$1" ] || command -v -- "$1" > /dev/null; then printf '%s\0' "$1"; else xargs printf '%s\0' <<< "$1"; fi
}
deblurring=$(realpath "$1") reblurring=$(realpath "$2") out=$(realpath -m "$3")
mapfile -d '' -t testsets < <(words "$4")
if [ -n "$4" ] && [ ${#testsets[@]} = 0 ]; then exit 2; fi  # xargs has said why
shift 4
mapfile -d '' -t python < <(words "${PYTHON:-python}")
mapfile -d '' -t train_flags < <(words "${TRAIN_FLAGS:-}")
mapfile -d '' -t test_flags < <(words "${TEST_FLAGS:-}")
root=$(dirname "$(realpath "$0")")/..
networks=("$deblurring")

for seed in ${SEEDS:-1 2}; do
    for lambda in ${LAMBDAS:-0 0.1}; do
        name=lambda$lambda-seed$seed
        networks+=("$out/$name/DeblurringNet_FT.pth")
        if [ -e "$out/$name/done" ]; then continue; fi
        "${python[@]}" "$root/DR_training.py" --stage finetune --deblurring_weights "$deblurring" --reblurring_weights "$reblurring" \
            --trainset_dir "$@" --max_steps "${FT_STEPS:-2076}" --clip_grad 0.3 --lambda_B "$lambda" --seed "$seed" \
            --cache_dir "$out/cache" --precision bf16 --ema_decay 0.999 --save_every 5min --keep 1 --resume auto \
            --output_dir "$out/$name" --log_dir "$out/$name/log" "${train_flags[@]}"
        touch "$out/$name/done"
    done
done
if [ ${#testsets[@]} = 0 ]; then exit; fi
"${python[@]}" "$root/D_testing.py" --testset_dir "${testsets[@]}" --save_dir "$out/results" --overwrite --weights "${networks[@]}" \
    "${test_flags[@]}"
