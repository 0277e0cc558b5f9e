#!/usr/bin/env bash
# A slice of training of the bundled networks: so many minutes, from where the slice before it ended. Deblurring and
# reblurring run side by side, each on its own GPU if there are two. Afterwards OUT/NF.pth and OUT/R.pth are
# what was reached (fp16: a slice begins with a new optimiser and a warm-up), and OUT/history.csv has a row for each:
# steps, learning rate, settings, commit, PSNR on held-out pairs by set, worst picture. A stopped slice is resumed.
#
#   MINUTES=10 bash recipes/open_weights.sh DATA OUT
#
# DATA: sharp/ and sharp_extra/, photographs; sequences of real pairs, each with blur/ and sharp/ and files named by
# digits: GOPRO_sample/train/GOPR0372_07_00, pairs_extra/gopro/GOPR0477_11_00, pairs_extra/gopro_gamma/{GOPR0374_11_00,
# GOPR0384_11_02}, pairs_extra/reds/{000,001,003,020,val}. PYTHON: the interpreter (default: python), such as
# .venv/bin/python. From what the first slice starts: START, REBLUR_START (files; default: new networks) and the steps
# that they have seen, START_STEPS, REBLUR_START_STEPS. The learning rate begins at LR and REBLUR_LR and is halved every
# HALVE_EVERY epochs (reblurring, whose steps are shorter: twice as many), about three times a slice on a GPU that takes
# 48 steps/s. PROCESSES=3: deblurring on so many GPUs, with six patches on each, and reblurring on the next one.
# For trials: STAGES="deblur"; STEPS, at which a slice ends before its MINUTES are over; BLUR="share_still=0.2" or "",
# see DR_training.py --blur; TRAINSET, data sets in the place of the mix below, with the folder of its links, OUT/links,
# written as LINKS; FLAGS, for both stages; NAME, what the history calls the slice; COMMIT, where git does not know it.
# PYTHON, BLUR, TRAINSET and FLAGS may be several words; one with spaces stands in quotes: FLAGS="--cache_dir 'my cache'".
set -euo pipefail
if [ $# != 2 ]; then
    echo "usage: bash recipes/open_weights.sh DATA OUT (see the comments at the top of the script)" >&2
    exit 2
fi
for stage in ${STAGES:-}; do
    case $stage in deblur | reblur) ;; *) echo "STAGES: expected deblur or reblur, found $stage" >&2; exit 2 ;; esac
done
data=$(realpath "$1") out=$(realpath -m "$2")
START=${START:+$(realpath "$START")} REBLUR_START=${REBLUR_START:+$(realpath "$REBLUR_START")}
HISTORY=$(realpath -m "${HISTORY:-$out/history.csv}")
cd "$(dirname "$0")/.."
STAGES=${STAGES:-deblur reblur} MINUTES=${MINUTES:-10}
BLUR=${BLUR-share_still=0.2 share_frames=0.5}  # what helped, see docs/results.md
PROCESSES=${PROCESSES:-1}
HALVE_EVERY=${HALVE_EVERY:-$(awk "BEGIN { n = int(($MINUTES + 2) / 3); print (n > 1 ? n : 1) }")}
words() {  # TEXT: its words, each ended by a zero byte; a path with spaces stands in quotes, or is the whole text
    if [ -z "$1" ]; then return; fi
    if [ -e "$1" ] || command -v -- "$1" > /dev/null; then printf '%s\0' "$1"; else xargs printf '%s\0' <<< "$1"; fi
}
mapfile -d '' -t python < <(words "${PYTHON:-python}")
mapfile -d '' -t blur < <(words "$BLUR")
mapfile -d '' -t flags < <(words "${FLAGS:-}")
links=$out/links
mkdir -p "$out" "$(dirname "$HISTORY")"
exec 9> "$out/lock"
if ! flock --nonblock 9; then
    echo "another slice is running in $out; wait for its end, or give another OUT" >&2
    exit 2
fi
mkdir -p "$links"
find "$links" -type l -delete  # of an earlier slice, to what DATA may not hold any more; nothing but links

link_sequence() {  # FROM TO [CONDITION]: links to a sequence's pairs, those whose number i (from 0) satisfies the condition
    local side
    for side in blur sharp; do
        mkdir -p "$links/$2/$side"
        find "$data/$1/$side" -name '[0-9]*' | sort | awk "{ i = NR - 1 } ${3:-1}" \
            | while IFS= read -r file; do ln -sfn "$file" "$links/$2/$side/"; done
    done
}

# Held out, never trained on: a REDS sequence, one of GoPro with gamma, every third pair of one with nearly sharp
# frames.
link_sequence pairs_extra/reds/003 validation/reds_003
link_sequence pairs_extra/gopro_gamma/GOPR0384_11_02 validation/gopro_gamma
link_sequence pairs_extra/gopro/GOPR0477_11_00 validation/gopro_0477 'i % 3 == 0'
validation=("$links"/validation/*)

link_sequence GOPRO_sample/train/GOPR0372_07_00 train/gopro_0372
link_sequence pairs_extra/gopro/GOPR0477_11_00 train/gopro_0477 'i % 3 != 0'
link_sequence pairs_extra/gopro_gamma/GOPR0374_11_00 train/gopro_gamma
for name in 000 001 020 val; do link_sequence pairs_extra/reds/$name train/reds_$name; done
mkdir -p "$links/frames"  # the pairs' sharp sides, as photographs
for sequence in "$links"/train/*; do
    for file in "$sequence"/sharp/*; do ln -sfn "$(readlink "$file")" "$links/frames/${sequence##*/}_${file##*/}"; done
done

# Times an epoch: 70 % photographs, blurred as they are used; of the real pairs no scene above 7.4 %.
mix=("24*sharp=$data/sharp" "24*sharp=$data/sharp_extra" "12*sharp=$links/frames"
    "36*paired=$links/train/gopro_0372" "72*paired=$links/train/gopro_0477" "24*paired=$links/train/gopro_gamma"
    "72*paired=$links/train/reds_000" "72*paired=$links/train/reds_001" "66*paired=$links/train/reds_020"
    "72*paired=$links/train/reds_val")
if [ -n "${TRAINSET:-}" ]; then
    mapfile -d '' -t mix < <(words "$TRAINSET")
    mix=("${mix[@]//LINKS/"$links"}")
fi

row() {  # STAGE FILE and more: scores a network and adds a row to the history, which both stages write
    flock "$HISTORY.lock" "${python[@]}" -m tools.training_history "$HISTORY" "$1" "$2" --valset_dir "${validation[@]}" \
        --precision bf16 --device "$device" ${COMMIT:+--commit "$COMMIT"} "${@:3}"
}

slice() {  # STAGE NAME FILE START START_STEPS LR EPOCHS DEVICE PROCESSES
    local stage=$1 result=$out/$2.pth file=$3 start=$4 lr=$6 epochs=$7 device=$8 processes=$9 number work training status=0
    if [ -e "$result" ]; then
        [ -z "$start" ] || echo "$stage: continues from $result, not from $start"
        start=$result
    fi
    if [ -n "$start" ] && ! grep -qs ",$stage," "$HISTORY"; then row "$stage" "$start" --steps "$5" --name start; fi
    number=$(grep -c ",$stage," "$HISTORY" 2> /dev/null || true)
    number=${number:-0}
    work=$out/$stage-$number
    local from=()
    [ -z "$start" ] || from=("--${stage}ring_weights" "$start")
    local script=(DR_training.py --batch_size "$((6 * processes))")
    [ "$processes" = 1 ] || script=(-m torch.distributed.run --standalone --nproc_per_node "$processes" "${script[@]}")
    timeout --signal TERM --kill-after 120 "${MINUTES}m" "${python[@]}" "${script[@]}" --stage "$stage" "${from[@]}" \
        --trainset_dir "${mix[@]}" ${blur:+--blur "${blur[@]}"} --cache_dir "$out/cache" --output_dir "$work" \
        --log_dir "$work/log" --lr "$lr" --n_steps "$epochs" --warmup_steps 1000 --ema_decay 0.9995 --clip_grad 0.3 \
        --precision bf16 --seed "$number" --save_every 5min --keep 1 --resume auto --device "$device" \
        ${STEPS:+--max_steps "$STEPS"} "${flags[@]}" &
    training=$!
    trap 'kill -TERM "$training" 2> /dev/null' TERM HUP  # timeout passes it on, and the training saves what it has
    wait "$training" || status=$?
    if kill -0 "$training" 2> /dev/null; then  # a signal ended the wait, not the training
        wait "$training" || true
        echo "$stage: stopped; the same command continues this slice" >&2
        return 143
    fi
    # 124: the time was over. Then the network is written, and the state after it.
    if [ $status != 0 ] && [ $status != 124 ]; then return $status; fi
    if [ -z "$(find "$work/states" -name 'step-*.pth' -newer "$work/$file")" ]; then
        echo "$stage: the training ended without saving its state; the same command continues from the last one" >&2
        return 1
    fi
    rm -f "$result.new"
    "${python[@]}" -m tools.halve "$work/$file" "$result.new"
    local of=
    [ "$processes" = 1 ] || of=", $processes processes"
    row "$stage" "$result.new" --run "$work" --lr "$lr, halved every $epochs epochs$of" --name "${NAME:-$number}" \
        --data "$(for set in "${mix[@]}"; do printf '%s*%s ' "${set%%\**}" "${set##*/}"; done)${BLUR:-} ${FLAGS:-}"
    mv "$result.new" "$result"
    rm -r "$work/states"
}

devices=(auto auto)
if [ -z "${DEVICE:-}" ] && [ "$("${python[@]}" -c 'import torch; print(torch.cuda.device_count())')" -gt "$PROCESSES" ]; then
    devices[1]=cuda:$PROCESSES
fi
failed=0 running=()
for stage in $STAGES; do
    case $stage in
        deblur) slice deblur NF DeblurringNet_NF.pth "${START:-}" "${START_STEPS:-0}" "${LR:-1e-4}" \
            "$HALVE_EVERY" "${DEVICE:-${devices[0]}}" "$PROCESSES" & ;;
        reblur) slice reblur R ReBlurringNet.pth "${REBLUR_START:-}" "${REBLUR_START_STEPS:-0}" "${REBLUR_LR:-2e-4}" \
            "$((2 * HALVE_EVERY))" "${DEVICE:-${devices[1]}}" 1 & ;;
    esac
    running+=($!)
done
trap 'kill -TERM "${running[@]}" 2> /dev/null' TERM INT HUP
for job in "${running[@]}"; do
    wait "$job" || failed=1
    while kill -0 "$job" 2> /dev/null; do wait "$job" || failed=1; done  # a signal ends wait, not the slice
done
exit $failed
