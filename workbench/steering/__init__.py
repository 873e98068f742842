"""Steering by attributes: rules that rate answers, and how well a model does what its sliders ask."""
