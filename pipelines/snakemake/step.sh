#!/usr/bin/env bash
# Run one command of a study, and leave behind what became of it:
#   step.sh DONE LOG -- COMMAND...
# DONE receives the command's JSON result once it is done, also where some wells are not (exit code 1). LOG receives
# what it said, and at the end a line `exit: CODE`; a command that was killed leaves none.
set -u
done_file=$1 log=$2
shift 3
mkdir -p "$(dirname "$done_file")" "$(dirname "$log")"
# What is replaced: `all`, or steps by name. The report is always made anew, and its command says so itself.
step=${done_file##*/steps/}
case " $* " in *" --overwrite "*) ;; *)
  case " ${CELLVIM_OVERWRITE:-} " in *" all "* | *" ${step%.json} "*) set -- "$@" --overwrite ;; esac ;;
esac

# What is wrong with an input or a flag is wrong at the next attempt, too.
if [ "${CELLVIM_ATTEMPT:-1}" -gt 1 ] && [ -f "$log" ]; then
  last=$(tail -n 1 "$log")
  case $last in "exit: 2" | "exit: 3" | "exit: 70") exit "${last#exit: }" ;; esac
fi
rm -f "$done_file"

# A Snakemake that was killed leaves its commands running, and they hold their output. They are waited for, half an hour.
for _ in $(seq 180); do
  : >"$log"
  result=$("$@" --json 2>>"$log")
  code=$?
  if [ "$code" -ne 4 ] || ! grep -q 'is being written by' "$log"; then break; fi
  sleep 10
done

echo "exit: $code" >>"$log"
result=${result##*$'\n'}
# torchrun ends with 1 whatever happened to its command, so a result must be there, too.
if [ "$code" -le 1 ] && [[ $result == "{"*"}" ]]; then
  printf '%s\n' "$result" >"$done_file.$$" && mv "$done_file.$$" "$done_file"
  exit
fi
[ "$code" -ne 0 ] || code=70
exit "$code"
