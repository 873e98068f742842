#!/usr/bin/env bash

#OAR -n 20261125-101502-dpo-3f9a
#OAR -q default
#OAR --project align
#OAR -l /nodes=1/core=4,walltime=4:00:00

export A=1
umask 077; cd /home/ada; exec /venv/bin/python -m workbench.processes.driver '/shared/runs/20261125-101502-dpo-3f9a it'"'"'s' >> /shared/runs/20261125-101502-dpo-3f9a/logs/oar.1.log 2>&1
