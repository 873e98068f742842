#!/usr/bin/env bash

#BSUB -J 20261125-101502-dpo-3f9a
#BSUB -q normal
#BSUB -P "align"
#BSUB -n 8
#BSUB -R "span[hosts=1]"
#BSUB -M 16000000
#BSUB -W 4:00

export A=1
umask 077; cd /home/ada; exec /venv/bin/python -m workbench.processes.driver '/shared/runs/20261125-101502-dpo-3f9a it'"'"'s' >> /shared/runs/20261125-101502-dpo-3f9a/logs/lsf.1.log 2>&1
