#!/usr/bin/env bash

#$ -N 20261125-101502-dpo-3f9a
#$ -q all.q
#$ -P align
#$ -l h_rt=4:00:00
#$ -cwd
#$ -j y
#$ -pe smp 4

export A=1
umask 077; cd /home/ada; exec /venv/bin/python -m workbench.processes.driver '/shared/runs/20261125-101502-dpo-3f9a it'"'"'s' >> /shared/runs/20261125-101502-dpo-3f9a/logs/sge.1.log 2>&1
