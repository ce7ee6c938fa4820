"""A local web server for an interactive deep-zoom viewer."""
