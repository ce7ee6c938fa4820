"""One picture to zoom into without end: its tiles, who draws them, and the pages that show them."""
