"""One file a role: where it is placed, the role in the policy's processes, behind a server, and in that server."""
