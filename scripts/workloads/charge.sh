#!/bin/sh
# Charges and uncharges a group from parallel processes, through its files.
#
# usage: charge.sh GROUP [-t files|lease] [-r RESOURCE] [-j PROCESSES] [-n OPERATIONS]
#                        [-d SECONDS] [-s SIZE] [-p PERCENT] [-e SEED]
#
#   GROUP          a directory of a mounted tree
#   -t files       by R.charge and R.uncharge: the group itself holds the charges (default)
#   -t lease       by R.lease on an open descriptor: the process holds the charges
#   -r RESOURCE    the resource to charge (memory)
#   -j PROCESSES   the number of parallel processes (1)
#   -n OPERATIONS  of each process (1000; with -d: no end)
#   -d SECONDS     stop after that long
#   -s SIZE        a charge is 1 to SIZE (4096)
#   -p PERCENT     of the operations are charges (60: grows until a limit refuses)
#   -e SEED        of the amounts (1)
#
# After its operations each process prints its charges in one line:
#
#   held=4096 refused=3 charges=70 uncharges=27 seconds=0.52 pid=77 through=lease resource=memory group=GROUP
#
# It keeps them until its standard input ends, or until SIGTERM, and then releases them.
set -u

fail() {
    printf 'charge.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

usage() {
    sed -n '4,17s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# Hundredths of a second since the machine started, without a fork.
clock() {
    read -r up _ </proc/uptime
    now=${up%.*}${up#*.}
}

# The builtin printf reports a refused write by its status only.
charge() {
    case $through in
        files) printf '%s\n' "$1" >"$group/$resource.charge" ;;
        lease) printf '+%s\n' "$1" >&3 ;;
    esac 2>/dev/null
}

uncharge() {
    case $through in
        files) printf '%s\n' "$1" >"$group/$resource.uncharge" ;;
        lease) printf -- '-%s\n' "$1" >&3 ;;
    esac
}

# The next amount, from 1 to SIZE, and a number from 0 to 99.
draw() {
    seed=$(((seed * 1103515245 + 12345) & 0x7fffffff))
    percentile=$(((seed >> 8) % 100))
    seed=$(((seed * 1103515245 + 12345) & 0x7fffffff))
    amount=$(((seed >> 4) % size + 1))
}

operate() {
    draw
    if [ "$percentile" -lt "$percent" ]; then
        if charge "$amount"; then
            held=$((held + amount))
            charges=$((charges + 1))
        elif [ -e "$group/$resource.failcnt" ]; then
            refused=$((refused + 1))
        else
            fail "$group: the group was removed during the run"
        fi
    elif [ "$held" -gt 0 ]; then
        [ "$amount" -le "$held" ] || amount=$held
        uncharge "$amount" || fail "$group/$resource: cannot uncharge $amount of the $held that are held"
        held=$((held - amount))
        uncharges=$((uncharges + 1))
    fi
}

work() {
    seed=$1 held=0 refused=0 charges=0 uncharges=0 left=$operations going=yes
    read -r pid _ </proc/self/stat
    [ "$through" = files ] || exec 3<>"$group/$resource.lease"
    # No signal may end the loop between a write and its count, or the sums would differ.
    trap 'going=' TERM INT HUP
    clock
    start=$now end=$((now + seconds * 100))
    while [ "$going" ] && [ "$left" -ne 0 ]; do
        [ "$seconds" -eq 0 ] || { clock && [ "$now" -lt "$end" ]; } || break
        operate
        left=$((left - 1))
    done
    clock
    taken=$((now - start))
    [ "$held" -eq 0 ] || trap 'uncharge "$held"' EXIT
    trap 'exit 143' TERM INT HUP
    printf 'held=%s refused=%s charges=%s uncharges=%s seconds=%s.%02d pid=%s through=%s resource=%s group=%s\n' \
        "$held" "$refused" "$charges" "$uncharges" $((taken / 100)) $((taken % 100)) \
        "$pid" "$through" "$resource" "$group"
    [ "$going" ] || exit 143
    while read -r _; do :; done
}

case ${1:--} in -*) usage ;; esac
group=$1
shift
through=files resource=memory processes=1 operations='' seconds=0 size=4096 percent=60 first=1
while getopts t:r:j:n:d:s:p:e: option; do
    case $option in
        t) through=$OPTARG ;;
        r) resource=$OPTARG ;;
        j) processes=$OPTARG ;;
        n) operations=$OPTARG ;;
        d) seconds=$OPTARG ;;
        s) size=$OPTARG ;;
        p) percent=$OPTARG ;;
        e) first=$OPTARG ;;
        *) usage ;;
    esac
done
[ "$OPTIND" -gt $# ] || usage
case $through in files | lease) ;; *) usage ;; esac
if [ -z "$operations" ]; then
    [ "$seconds" -eq 0 ] && operations=1000 || operations=-1
fi
[ -e "$group/$resource.lease" ] || fail "$group: no group with a resource $resource in a mounted tree"

# A background process reads /dev/null unless the script passes another input.
exec 4<&0 </dev/null
pids='' index=0 status=0
# shellcheck disable=SC2086 # a list of numbers
trap 'processes=0; kill $pids 2>/dev/null' TERM INT HUP
while [ "$index" -lt "$processes" ]; do
    work $((first + index)) <&4 4<&- &
    pids="$pids $!"
    index=$((index + 1))
done
exec 4<&-
for pid in $pids; do
    wait "$pid" || status=1
done
wait
exit "$status"
