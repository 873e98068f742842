"""Servers beside the policy: PyTriton in front of the engine, found through the run directory, with a token for every request.

`endpoint` says what a request holds, `server` answers, `client` asks, `discovery` is how they find each other; `roles` are what the policy asks
for, and `__main__` is a server's process.
"""
