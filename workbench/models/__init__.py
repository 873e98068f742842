"""The roles beside the policy: reference, critic, reward. In the process or served, behind one protocol."""
