#!/usr/bin/env bash
# Does the reblurring term help? Fine-tunes a network with it and, as the control, without it, with two seeds.
#
#   bash recipes/finetune_control.sh NF R OUT TESTSET TRAINSET...
#
# NF and R: the networks that deblur and reblur; TESTSET: pairs on which all are scored; TRAINSET: data sets as
# DR_training.py takes them, such as 12*sharp=PHOTOS 24*PAIRS. FT_STEPS: of each run; SEEDS="1": to spread the seeds over
# several calls; TEST_FLAGS: for D_testing.py. Finished runs are not repeated; a stopped run is resumed.
# PYTHON and TEST_FLAGS may be several words; a path with spaces stands in quotes.
set -euo pipefail
if [ $# -lt 5 ]; then
    echo "usage: bash recipes/finetune_control.sh NF R OUT TESTSET TRAINSET... (see the comments at the top of the script)" >&2
    exit 2
fi
deblurring=$(realpath "$1") reblurring=$(realpath "$2") out=$(realpath -m "$3") testset=$4
shift 4
words() {  # TEXT: its words, each ended by a zero byte; a path with spaces stands in quotes, or is the whole text
    if [ -z "$1" ]; then return; fi
    if [ -e "$1" ] || command -v -- "$1" > /dev/null; then printf '%s\0' "$1"; else xargs printf '%s\0' <<< "$1"; fi
}
mapfile -d '' -t python < <(words "${PYTHON:-python}")
mapfile -d '' -t test_flags < <(words "${TEST_FLAGS:-}")
root=$(dirname "$(realpath "$0")")/..
networks=("$deblurring")

for seed in ${SEEDS:-1 2}; do
    for run in "ft 0.1" "control 0"; do
        name=${run% *}-seed$seed
        networks+=("$out/$name/DeblurringNet_FT.pth")
        if [ -e "$out/$name/done" ]; then continue; fi
        "${python[@]}" "$root/DR_training.py" --stage finetune --deblurring_weights "$deblurring" --reblurring_weights "$reblurring" \
            --trainset_dir "$@" --max_steps "${FT_STEPS:-2076}" --clip_grad 0.3 --lambda_B "${run#* }" --seed "$seed" \
            --cache_dir "$out/cache" --precision bf16 --ema_decay 0.999 --save_every 5min --keep 1 --resume auto \
            --output_dir "$out/$name" --log_dir "$out/$name/log"
        touch "$out/$name/done"
    done
done
"${python[@]}" "$root/D_testing.py" --testset_dir "$testset" --save_dir "$out/results" --overwrite --weights "${networks[@]}" \
    "${test_flags[@]}"
