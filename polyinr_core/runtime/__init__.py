"""Files, random numbers, processes and devices: what every other package stands on."""
