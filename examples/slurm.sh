#!/usr/bin/env bash
# Train on a SLURM cluster in jobs of four hours, each going on where the last one stopped.
# Usage: sbatch slurm.sh DATA RUN_DIR [OPTIONS OF polyinr train]
#SBATCH --job-name=polyinr
#SBATCH --array=1-10%1
#SBATCH --time=04:00:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --output=%x-%A_%a.log
#SBATCH --signal=USR1@300
# --array=1-10%1: at most ten jobs, one after the other; those that find the run finished end at once.
# --signal: five minutes before the limit each process of the step gets SIGUSR1, and saves a training state.
set -euo pipefail
data=$1
run_dir=$2
shift 2

# the limit, less ten minutes to start and to save; at the limit itself SLURM sends SIGTERM, which saves and stops too
max_time=${MAX_TIME:-230m}
gpus=${SLURM_GPUS_ON_NODE:-1}
export OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-8} / gpus))

if [ "$gpus" -gt 1 ]; then
  launch=(torchrun --standalone --nproc-per-node "$gpus" -m polyinr_cli)
else
  launch=(polyinr)
fi
# ignored by what starts Python, and until Python handles it, SIGUSR1 would end the process
srun bash -c 'trap "" USR1; exec "$@"' bash "${launch[@]}" train "$data" --run-dir "$run_dir" --max-time "$max_time" --quiet "$@"
