"""A page of a model's pictures: what is shown of it, and the page."""
