"""What a notebook works with: experiments, runs, and widgets that show them live."""
