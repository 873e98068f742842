"""Values that losses and advantages are compared with, and what makes them."""
