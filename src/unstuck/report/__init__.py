"""From a Report to what a person reads: the terminal, an HTML page, figures. Rendering never measures anything."""
