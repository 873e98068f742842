#!/usr/bin/env bash

#SBATCH -J 20261125-101502-dpo-3f9a
#SBATCH -p h100
#SBATCH -A align
#SBATCH --cpus-per-task=96
#SBATCH --mem=895G
#SBATCH -t 12:00:00
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:8
#SBATCH --qos=long
#SBATCH --constraint='h100&ib'
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --output=/dev/null
#SBATCH --signal=B:USR1@120
#SBATCH hetjob
#SBATCH -J 20261125-101502-dpo-3f9a
#SBATCH -p a100
#SBATCH -A align
#SBATCH --cpus-per-task=96
#SBATCH --mem=895G
#SBATCH -t 12:00:00
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gres=gpu:4
#SBATCH --qos=long
#SBATCH --constraint=a100
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --output=/dev/null
#SBATCH --signal=B:USR1@120

umask 077
run=/shared/runs/20261125-101502-dpo-3f9a
exec >> "$run/logs/slurm.$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}.log" 2>&1


cd /home/ada
export WORKBENCH_DASK="$run/dask/$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"
export WORKBENCH_WARNED="$WORKBENCH_DASK/warned"
export WORKBENCH_FIRST="$SLURMD_NODENAME"
export DASK_LOGGING__DISTRIBUTED=error DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP=15s
mkdir -p "$WORKBENCH_DASK"

# On each node a dask worker, started again when it dies. SIGTERM to a job's steps is the warning of a preemption.
node() {
  trap ': > "$WORKBENCH_WARNED"' TERM
  own=$(mktemp -d)
  while [ ! -e "$WORKBENCH_DASK/over" ]; do
    if [ -s "$WORKBENCH_DASK/scheduler.json" ]; then
      cp "$WORKBENCH_DASK"/* "$own"  # dask takes a path with a line break for the certificate itself
      setsid /venv/bin/python -m distributed.cli.dask_worker --scheduler-file "$own/scheduler.json" --name "$1-$(printf %05d "$SLURM_PROCID")" --nthreads 96 --memory-limit 894.07GiB --no-nanny --death-timeout 60 --nthreads 2 --memory-limit 0 --no-dashboard --worker-class workbench.backends._dask.Worker --local-directory "$own" --protocol tls --tls-ca-file "$own/dask.crt" --tls-cert "$own/dask.crt" --tls-key "$own/dask.key" --interface ib0 &
      while kill -0 $! 2> /dev/null; do wait $!; done
    fi
    sleep 0.3
  done
  rm -rf "$own"
}
export -f node
srun --nodes=8 --ntasks=8 --het-group=0 --cpus-per-task="${SLURM_CPUS_PER_TASK_HET_GROUP_0:-1}" --ntasks-per-node=1 --no-kill --kill-on-bad-exit=0 --wait=0 --overlap --mpi=none --export=ALL bash -c 'node "$@"' node actor &
srun --nodes=4 --ntasks=4 --het-group=1 --cpus-per-task="${SLURM_CPUS_PER_TASK_HET_GROUP_1:-1}" --ntasks-per-node=1 --no-kill --kill-on-bad-exit=0 --wait=0 --overlap --mpi=none --export=ALL bash -c 'node "$@"' node critic &

# The driver: a scheduler for the workers, and the run's supervisor. One that is killed is started again.
trap ': > "$WORKBENCH_WARNED"' USR1 TERM
died=0
while :; do
  rm -f "$WORKBENCH_DASK/scheduler.json"
  WORKBENCH_RESTARTS=$((${SLURM_RESTART_COUNT:-0} + died)) /venv/bin/python -m workbench.processes.driver /shared/runs/20261125-101502-dpo-3f9a &
  driver=$!
  while kill -0 $driver 2> /dev/null; do wait $driver; code=$?; done
  if [ $code -le 128 ] || [ $died -ge 3 ]; then break; fi
  died=$((died + 1))
done
: > "$WORKBENCH_DASK/over"
if [ $code = 75 ]; then
  # A job that was cancelled, or that SLURM is taking off its nodes, is SLURM's to end. Of a heterogeneous job each component is listed.
  if [ "$(squeue --noheader --jobs=$SLURM_JOB_ID --format=%T | sort -u)" = RUNNING ]; then scontrol requeue $SLURM_JOB_ID; else sleep 120; fi
fi
exit $code

