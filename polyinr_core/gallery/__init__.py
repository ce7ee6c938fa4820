"""An HTML page that shows what a model can do."""
