"""Charts as inline SVG, made by hand: one kind a file. Colours come from the page's CSS variables."""
