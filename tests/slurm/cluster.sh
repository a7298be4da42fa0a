#!/usr/bin/env bash
# A real Slurm on this one machine, for tests: no systemd and no database, all in one folder but for a link to it from
# /etc/slurm. Needs root and `apt-get install --no-install-recommends slurm-wlm munge`.
#
#   tests/slurm/cluster.sh start    start it, or find it running
#   tests/slurm/cluster.sh status   daemons, nodes and jobs; exit code 1 if it does not answer
#   tests/slurm/cluster.sh stop     cancel all jobs and end all daemons
#
# In .ci/run:
#   tests/slurm/cluster.sh start
#   trap 'tests/slurm/cluster.sh stop' EXIT
#
# Partition `main` is one node with all CPUs of the machine. Partition `pair` is two nodes of one CPU each, on the same
# CPUs, for what runs on several nodes.
set -euo pipefail

folder=${CELLVIM_SLURM_FOLDER:-/tmp/cellvim-slurm}
cpus=${CELLVIM_SLURM_CPUS:-$(nproc)}
port=${CELLVIM_SLURM_PORT:-26817}
nodes=(main pair1 pair2)
link=/etc/slurm/slurm.conf
export SLURM_CONF=$folder/slurm.conf

main() {
  case ${1:-} in
    start) start ;;
    status) status ;;
    stop) stop ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
  esac
}

start() {
  if ! answers; then
    require
    stop
    configure
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
      --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" >&2
    slurmctld -c >&2
    for node in "${nodes[@]}"; do slurmd -N "$node" >&2; done
    wait_until "every node is idle" all_idle
  fi
  # Where clients look: a variable would not do, as Snakemake's plugin takes SLURM_* out of the environment of a job.
  if [ ! -e "$link" ]; then
    mkdir -p "$(dirname "$link")"
    ln -sfn "$SLURM_CONF" "$link"
  fi
  [ "$(readlink -f "$link")" = "$SLURM_CONF" ] || echo "$link is of another cluster: export SLURM_CONF=$SLURM_CONF" >&2
  status
}

status() {
  scontrol ping && sinfo --Node && squeue
}

# Daemons are ended by the process ids they wrote down, after what runs inside jobs.
stop() {
  if answers; then
    scancel --user "$(id -un)" 2>/dev/null || true
    wait_until "every job has ended" no_jobs || true
  fi
  local pid
  for pid in "$folder"/slurmd.*.pid "$folder"/slurmctld.pid "$folder"/munged.pid; do end "$pid"; done
  if [ "$(readlink "$link")" = "$SLURM_CONF" ]; then rm "$link"; fi
  rm -rf "$folder"
}

require() {
  local tool
  for tool in munged slurmctld slurmd; do
    if ! command -v "$tool" >/dev/null; then
      echo "$tool is missing: apt-get install --no-install-recommends slurm-wlm munge" >&2
      exit 1
    fi
  done
  if [ "$(id -u)" != 0 ]; then
    echo "Slurm's daemons start jobs in users' names, which takes root" >&2
    exit 1
  fi
}

configure() {
  local host memory
  host=$(uname -n)
  memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)
  mkdir -p "$folder/state"
  (umask 077; head -c 128 /dev/urandom >"$folder/munge.key")
  # cred_expire is also how long a requeued job waits before it may start again: 120 s unless set, 5 s at least.
  cat >"$SLURM_CONF" <<CONF
ClusterName=cellvim
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=500
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=15
SlurmdTimeout=30
MinJobAge=300
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2,sched_min_interval=100000
NodeName=main NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=$cpus RealMemory=$memory
NodeName=pair1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1 RealMemory=$((memory / 4))
NodeName=pair2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 3)) CPUs=1 RealMemory=$((memory / 4))
PartitionName=main Nodes=main Default=YES State=UP
PartitionName=pair Nodes=pair[1-2] State=UP
CONF
}

answers() {
  [ -f "$SLURM_CONF" ] && scontrol ping 2>/dev/null | grep -q 'is UP'
}

all_idle() {
  [ "$(sinfo --noheader --Node --format='%T' | sort -u)" = idle ]
}

no_jobs() {
  [ -z "$(squeue --noheader)" ]
}

end() {
  local pid
  [ -f "$1" ] || return 0
  pid=$(cat "$1")
  kill "$pid" 2>/dev/null || return 0
  wait_until "process $pid is gone" gone "$pid" || kill -9 "$pid" 2>/dev/null || true
}

gone() {
  ! kill -0 "$1" 2>/dev/null
}

wait_until() {
  local what=$1 deadline=$((SECONDS + 60))
  shift
  until "$@"; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      echo "waited 60 s in vain until $what; see $folder/*.log" >&2
      return 1
    fi
    sleep 0.2
  done
}

main "$@"
