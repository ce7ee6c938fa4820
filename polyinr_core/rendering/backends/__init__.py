"""Backends: what evaluates the synthesis network on a device."""
