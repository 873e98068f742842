#!/usr/bin/env condor_submit

MY.DaskWorkerName = "htcondor--$F(MY.JobId)--"
batch_name = 20261125-101502-dpo-3f9a
RequestCpus = MY.DaskWorkerCores
RequestMemory = floor(MY.DaskWorkerMemory / 1048576)
RequestDisk = floor(MY.DaskWorkerDisk / 1024)
MY.JobId = "$(ClusterId).$(ProcId)"
MY.DaskWorkerCores = 4
MY.DaskWorkerMemory = 16000000000
MY.DaskWorkerDisk = 8000000000
+Group = align
requirements = HasGpu

Arguments = "-c 'export A=1; umask 077; cd /home/ada; exec /venv/bin/python -m workbench.processes.driver ''/shared/runs/20261125-101502-dpo-3f9a it''""''""''s'' >> /shared/runs/20261125-101502-dpo-3f9a/logs/htcondor.1.log 2>&1'"
Executable = /bin/sh

Queue
