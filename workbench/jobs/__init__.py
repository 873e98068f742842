"""Launching and finding runs, what would keep one from starting, and what comes out of one."""
