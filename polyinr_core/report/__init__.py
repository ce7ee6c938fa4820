"""An HTML page about a training run."""

PAGE, CURVES, REALISM = "report.html", "curves.png", "realism.png"  # the files of a report
