"""Rewards that are programs: those that come with the project, and how one of your own is found."""
