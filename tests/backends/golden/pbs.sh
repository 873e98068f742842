#!/usr/bin/env bash

#PBS -N 20261125-101502-dpo-3f9a
#PBS -q workq
#PBS -A align
#PBS -l select=1:ncpus=4:mem=15GB
#PBS -l walltime=4:00:00
#PBS -m e

export A=1
umask 077; cd /home/ada; exec /venv/bin/python -m workbench.processes.driver '/shared/runs/20261125-101502-dpo-3f9a it'"'"'s' >> /shared/runs/20261125-101502-dpo-3f9a/logs/pbs.1.log 2>&1
