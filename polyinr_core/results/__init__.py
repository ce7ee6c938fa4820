"""Results of evaluation, read back: compared, with what is known of their differences, and put side by side."""
